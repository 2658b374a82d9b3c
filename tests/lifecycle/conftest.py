"""One server inside the test process, with tiny models and SAEs in its library."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.inside import Inside, serving
from tests.fixtures.repos import write_gpt2, write_saelens
from tests.fixtures.tiny import write_model, write_sae


@pytest.fixture(scope="session")
def shelves(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Path:
    """Folders to import: two models of one width, one of another width, and SAEs for them."""
    root = tmp_path_factory.mktemp("shelves")
    write_model(root / "other-llama", seed=7)
    write_gpt2(root / "gpt2")
    write_sae(root / "second", seed=9, layer=2)
    write_sae(root / "same-place", seed=5)
    write_saelens(root / "gpt2-sae")
    return root


@pytest.fixture(scope="module")
def inside(
    tmp_path_factory: pytest.TempPathFactory, shelves: Path, tiny_model: Path, tiny_sae: Path
) -> Iterator[Inside]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLM_TESTING_FAULTS", "1")
        with serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("home"), drain_timeout=30.0) as running:
            stock(running, shelves, tiny_model, tiny_sae)
            yield running


def stock(running: Inside, shelves: Path, tiny_model: Path, tiny_sae: Path) -> None:
    """All imports by folder name."""
    library = running.state.hub.library
    for folder in (tiny_model, shelves / "other-llama", shelves / "gpt2"):
        library.import_model(folder, folder.name)
    for folder in (tiny_sae, shelves / "second", shelves / "same-place", shelves / "gpt2-sae"):
        library.import_sae(folder, folder.name)
