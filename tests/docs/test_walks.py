"""What the pages tell a reader to type works, as it is written there."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients import environments
from tests.docs.blocks import ROOT
from tests.docs.standins import GATED, write_mistudio_sae, write_own_sae, write_standins
from tests.docs.walk import Walk
from tests.docs.walked import CLIENTS, DEMO, EMPTY
from tests.fixtures.fakehub import TOKEN, FakeHub, serving
from tests.fixtures.process import Server

pytestmark = pytest.mark.walks
BROUGHT = {
    "docs/recipes/own-sae.md": {
        "my-sae": write_own_sae,
        "trainings/train_1/community_format/layer_12_residual": write_mistudio_sae,
    },
}
"""Page → what its reader has already: where, and what writes it."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    with serving(write_standins(tmp_path_factory.mktemp("standins"))) as served:
        served.gated |= GATED
        yield served


@pytest.fixture
def variables(page: str, hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """Environment of a reader with a token, unless the page itself sets it."""
    has_token = "export HF_TOKEN" not in (ROOT / page).read_text("utf-8")
    quick = {"MILLM_DEVICE": "cpu", "MILLM_CPU_THREADS": "1"}
    return hub.environment(tmp_path / "cache") | quick | ({"HF_TOKEN": TOKEN} if has_token else {})


@pytest.fixture
def demo(demo_server: Server) -> Iterator[Server]:
    """Afterwards as it was before: other tests ask it, too."""
    with httpx.Client(base_url=demo_server.url) as door:
        monitor, profiles = door.get("/api/monitor").json(), names(door)
        yield demo_server
        door.put("/api/steering", content="null").raise_for_status()
        door.put("/api/monitor", json={"on": monitor["on"] and bool(monitor["watch"])}).raise_for_status()
        for name in names(door) - profiles:
            door.delete(f"/api/profiles/{name}").raise_for_status()


def names(door: httpx.Client) -> set[str]:
    return {profile["name"] for profile in door.get("/api/profiles").json()["profiles"]}


@pytest.mark.demo
@pytest.mark.parametrize("page", DEMO)
def test_a_page_is_followed_on_the_demo(page: str, demo: Server, variables: dict[str, str], tmp_path: Path) -> None:
    Walk(tmp_path, variables, demo).follow(page)


@pytest.mark.clients
@pytest.mark.demo
@pytest.mark.parametrize("page", CLIENTS)
def test_a_page_is_followed_with_its_client(page: str, demo: Server, variables: dict[str, str], tmp_path: Path) -> None:
    Walk(tmp_path, variables, demo, interpreter=environments.python("python")).follow(page)


@pytest.mark.parametrize("page", EMPTY)
def test_a_page_is_followed_from_nothing(page: str, variables: dict[str, str], tmp_path: Path) -> None:
    for name, write in BROUGHT.get(page, {}).items():
        write(tmp_path / name)
    Walk(tmp_path, variables).follow(page)
