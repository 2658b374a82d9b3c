"""What the pages tell a reader to type works, as it is written there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.standins import GATED, write_mistudio_sae, write_own_sae, write_standins
from tests.docs.walk import Walk
from tests.docs.walked import DEMO, EMPTY
from tests.fixtures.fakehub import FakeHub, serving
from tests.fixtures.process import Server

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
def variables(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    return hub.environment(tmp_path / "cache") | {"MILLM_DEVICE": "cpu"}


@pytest.mark.demo
@pytest.mark.parametrize("page", DEMO)
def test_a_page_is_followed_on_the_demo(
    page: str, demo_server: Server, variables: dict[str, str], tmp_path: Path
) -> None:
    Walk(tmp_path, variables, demo_server).follow(page)


@pytest.mark.parametrize("page", EMPTY)
def test_a_page_is_followed_from_nothing(page: str, variables: dict[str, str], tmp_path: Path) -> None:
    for name, write in BROUGHT.get(page, {}).items():
        write(tmp_path / name)
    Walk(tmp_path, variables).follow(page)
