"""One server inside the test's own process for all experiments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.experiments.asking import CHAT
from tests.fixtures.inside import Inside, serving


@pytest.fixture(scope="package")
def inside(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    with serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("home"), max_queue=64, cpu_int8="off") as running:
        yield running


@pytest.fixture(scope="package")
def api(inside: Inside) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=inside.url, timeout=30) as client:
        yield client


@pytest.fixture
def chat() -> dict[str, Any]:
    return dict(CHAT)
