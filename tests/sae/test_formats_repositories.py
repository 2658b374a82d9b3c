"""Facts of SAELens' catalogue are applied when files are read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from millm.hub.catalog import load_index
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from millm.sae.formats.saelens import REPOSITORY_INPUT_SCALES, REPOSITORY_NORMALISATIONS

D, F = 6, 10
GEMMA = "Gemma-2b-Residual-Stream-SAEs", "gemma_2b_blocks.12.hook_resid_post_16384"
MISTRAL = "Mistral-7B-Residual-Stream-SAEs", "mistral_7b_layer_16"
UNKNOWN = "some-saes", "blocks.12.hook_resid_post"


def opened(root: Path, location: tuple[str, str], **changes: Any) -> SparseAutoencoder:
    """The same weights, as a cache of Hugging Face's holds them."""
    repository, path = location
    folder = root / f"models--somebody--{repository}" / "snapshots" / ("0" * 40) / path
    folder.mkdir(parents=True, exist_ok=True)
    drawn = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,)}
    save_file(
        {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()},
        folder / "sae_weights.safetensors",
    )
    cfg = {"architecture": "standard", "d_in": D, "d_sae": F, "apply_b_dec_to_input": False}
    (folder / "cfg.json").write_text(json.dumps(cfg | changes))
    return SparseAutoencoder.open(canonicalise(folder, root / "saes"))


def test_the_scales_equal_the_catalogue() -> None:
    listed = {
        (load_index().releases[sae.releases[0]].repository.partition("/")[2], sae.path): sae.input_scale
        for sae in load_index().saes
        if sae.input_scale is not None and load_index().releases[sae.releases[0]].format == "saelens"
    }
    assert listed == {
        (name, path): scale for name, scales in REPOSITORY_INPUT_SCALES.items() for path, scale in scales.items()
    }


def test_the_repositories_are_in_the_catalogue() -> None:
    assert {*REPOSITORY_NORMALISATIONS, *REPOSITORY_INPUT_SCALES} <= {
        release.repository.partition("/")[2] for release in load_index().releases
    }


def test_a_known_scale_is_folded_for_files_that_need_one(tmp_path: Path) -> None:
    x = torch.randn(4, D)
    known = opened(tmp_path, GEMMA, normalize_activations="expected_average_only_in")
    explicit = opened(
        tmp_path, UNKNOWN, normalize_activations="expected_average_only_in",
        norm_scaling_factor=REPOSITORY_INPUT_SCALES[GEMMA[0]][GEMMA[1]],
    )  # fmt: skip
    without = opened(tmp_path, UNKNOWN)
    torch.testing.assert_close(known.encode(x), explicit.encode(x))
    assert not torch.allclose(known.encode(x), without.encode(x))
    torch.testing.assert_close(opened(tmp_path, GEMMA).encode(x), without.encode(x))


@pytest.mark.parametrize("normalisation", ["none", None])
def test_a_known_normalisation_overrides_the_file(normalisation: str | None, tmp_path: Path) -> None:
    x = torch.randn(4, D)
    known = opened(tmp_path, MISTRAL, normalize_activations=normalisation)
    assert known.config.normalize_activations == "constant_norm_rescale"
    rescaled = x * D**0.5 / x.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(known.encode(x), opened(tmp_path, UNKNOWN).encode(rescaled))
