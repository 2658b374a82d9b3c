"""`SAE.load` works as in the server, also in a running event loop; `encode` and `decode` equal SAELens."""

import asyncio
from pathlib import Path

import pytest
import torch

from millm import SAE, errors
from millm.demo.bundle import SAE_FOLDER
from millm.sae.autoencoder import SparseAutoencoder
from tests.fixtures.fakehub import serving
from tests.fixtures.repos import SCOPE_SAE, STAND_IN_WIDTH
from tests.fixtures.tiny import FEATURES, WIDTH, write_sae


def test_a_folder_is_loaded(tiny_sae: Path) -> None:
    sae = SAE.load(str(tiny_sae))
    assert (sae.name, sae.d_in, sae.d_sae, sae.layer) == ("tiny", WIDTH, FEATURES, 1)
    assert repr(sae) == "SAE('tiny', jumprelu, 96 features of blocks.1.hook_resid_post, width 48)"


def test_results_equal_the_saes_arithmetic(sae: SAE) -> None:
    own = SparseAutoencoder.open(sae.folder)
    x = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    acts = sae.encode(x)
    assert acts.shape == (3, 5, FEATURES)
    assert torch.equal(acts, own.encode(x))
    assert torch.equal(sae.activations(x), own.activations(x))
    assert torch.equal(sae.decode(acts), own.decode(acts))
    assert torch.equal(sae.decode(acts, x), sae.reconstruct(x))
    assert torch.equal(sae.direction(3), own.features([3]).dec[0])
    assert sae.encode(x.bfloat16()).dtype == torch.float32


def test_decode_needs_the_input_of_a_normalising_sae(tmp_path: Path) -> None:
    sae = SAE.load(write_sae(tmp_path / "layer-norm", normalize_activations="layer_norm"))
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0)) * 7 + 3
    acts = sae.encode(x)
    torch.testing.assert_close(sae.decode(acts, x), sae.reconstruct(x))
    with pytest.raises(errors.InvalidRequest, match="was encoded as well"):
        sae.decode(acts)


def test_tensors_are_moved_to_the_device(tiny_sae: Path) -> None:
    """`meta` has shapes without values: its results were computed there."""
    sae = SAE.load(tiny_sae, device="meta")
    assert sae.encode(torch.ones(2, WIDTH)).device.type == "meta"
    assert sae.direction(3).device.type == "meta"


def test_a_hugging_face_id_is_loaded(repositories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From inside an event loop, as in a notebook."""

    async def cell() -> SAE:
        return SAE.load(SCOPE_SAE)

    with serving(repositories) as hub:
        for name, value in hub.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        sae = asyncio.run(cell())
        assert (sae.name, sae.d_in, sae.layer) == (SCOPE_SAE, STAND_IN_WIDTH, 12)
        with pytest.raises(errors.RepositoryNotFound):
            SAE.load("google/gemma-scope-9b-pt-res/layer_1")


def test_labels_are_loaded() -> None:
    sae = SAE.load(SAE_FOLDER)
    assert "CAPS" in sae.labels[135].label
    assert sae.labels[135].max_act == 130.9


@pytest.mark.parametrize(
    ("name", "error"),
    [("no such thing", errors.CannotStart), ("owner/../name", errors.CannotStart), ("", errors.CannotStart)],
)
def test_invalid_names_are_rejected(name: str, error: type[errors.MillmError]) -> None:
    with pytest.raises(error):
        SAE.load(name)


def test_a_folder_without_an_sae(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidSae):
        SAE.load(tmp_path)


@pytest.mark.parametrize("index", [-1, FEATURES])
def test_an_unknown_feature_is_rejected(index: int, sae: SAE) -> None:
    with pytest.raises(errors.InvalidSteering, match="0 to 95"):
        sae.direction(index)


def test_a_tensor_of_another_width_is_rejected(sae: SAE) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"\[..., 48\], not \[2, 32\]"):
        sae.encode(torch.zeros(2, 32))
