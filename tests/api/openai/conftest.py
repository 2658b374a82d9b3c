"""The official clients and a bare one, pointed at the tiny server."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.fixtures.process import Server

GREETING = [{"role": "user", "content": "Tell me about the sea."}]


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, as people use it, but without its silent retries."""
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    """For what the official client hides: bytes, headers, and going away."""
    with httpx.Client(base_url=server.base_url, timeout=30) as client:
        yield client


@pytest.fixture
def chat(server: Server) -> dict[str, object]:
    """A short greedy chat: the same answer every time."""
    return {"model": server.model, "messages": GREETING, "temperature": 0, "max_tokens": 24}


@pytest.fixture
def text(server: Server) -> dict[str, object]:
    """A short greedy completion: the same answer every time."""
    return {"model": server.model, "prompt": "The sea is", "temperature": 0, "max_tokens": 24}
