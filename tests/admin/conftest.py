"""A bare client of the tiny server's `/api`, which leaves the server as it found it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fixtures.process import Server


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
        assert client.put("/api/steering", content=b"null").status_code == 200


@pytest.fixture
def chat(server: Server) -> dict[str, Any]:
    """A short greedy chat: the same answer every time."""
    return {
        "model": server.model,
        "messages": [{"role": "user", "content": "Tell me about the sea."}],
        "temperature": 0,
        "max_tokens": 16,
    }
