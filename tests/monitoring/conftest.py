"""One server with a tiny model for the room, which every test leaves as it found it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.inside import Inside, serving
from tests.monitoring.reference_hook import Hooked


@pytest.fixture(scope="package")
def inside(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    with serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("home"), cpu_int8="off", history_size=8) as inside:
        yield inside


@pytest.fixture
def api(inside: Inside) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=inside.url, timeout=30) as client:
        client.delete("/api/requests").raise_for_status()
        yield client
        client.put("/api/monitor", json={"on": False}).raise_for_status()
        client.put("/api/steering", content=b"null").raise_for_status()


@pytest.fixture(scope="package")
def hooked(tiny_model: Path, tiny_sae: Path, tmp_path_factory: pytest.TempPathFactory) -> Hooked:
    return Hooked(tiny_model, tiny_sae, tmp_path_factory.mktemp("canonical"))
