"""A client of the tiny server's `/api` that restores its state, and a server with a library."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from millm.database import Database
from millm.hub.home import Home
from millm.hub.library import Library
from tests.api.admin.library import MODEL, OTHER_SAE, SAE, SPARE, TOKEN, LibraryClient
from tests.cli.terminal import ready_url, started
from tests.fixtures.fakehub import FakeHub, serving
from tests.fixtures.process import Server
from tests.fixtures.repos import write_repositories
from tests.fixtures.tiny import write_model, write_sae


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
        assert client.put("/api/steering", content=b"null").status_code == 200


@pytest.fixture
def chat(server: Server) -> dict[str, Any]:
    """A short greedy chat, with a reproducible answer."""
    return {
        "model": server.model,
        "messages": [{"role": "user", "content": "Tell me about the sea."}],
        "temperature": 0,
        "max_tokens": 16,
    }


@pytest.fixture(scope="package")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    with serving(write_repositories(tmp_path_factory.mktemp("hub"))) as running:
        yield running


@pytest.fixture(scope="package")
def library(
    tmp_path_factory: pytest.TempPathFactory, hub: FakeHub, tiny_model: Path, tiny_sae: Path
) -> Iterator[LibraryClient]:
    """A server with two imported models and SAEs, nothing loaded, and a fake hub."""
    folder = tmp_path_factory.mktemp("library")
    home, cache = Home(folder / "home"), folder / "cache"
    home.create()
    with contextlib.closing(Database(home.database)) as database:
        ours = Library(home, database)
        ours.import_model(tiny_model, MODEL)
        ours.import_model(write_model(folder / "spare", seed=1), SPARE)
        ours.import_sae(tiny_sae, SAE)
        ours.import_sae(write_sae(folder / "other", layer=2), OTHER_SAE)
    variables = {**hub.environment(cache), "HF_TOKEN": TOKEN, "MILLM_DOWNLOAD_RESERVE_BYTES": "0"}
    with started("serve", "--no-restore", "--port", "0", home=home.folder, **variables) as process:
        client = LibraryClient(ready_url(process), (folder, tiny_model, tiny_sae))
        with contextlib.closing(client.http):
            yield client
