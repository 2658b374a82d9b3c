"""Against SAELens: encode, reconstruct, units and every steering mode, for all architectures and normalisations."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.activations import FeatureRows
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from millm.sae.steering import FeatureSetting, Mode, coefficients

GOLDENS = Path(__file__).parent / "goldens"
ARCHITECTURES = sorted(path.stem.removeprefix("sae_") for path in GOLDENS.glob("sae_*.safetensors"))
MODES: tuple[Mode, ...] = ("add", "clamp", "min_clamp", "scale", "ablate")


@dataclass(frozen=True)
class Golden:
    """One case: its SAE, read from SAELens' file format, and SAELens' results on x."""

    sae: SparseAutoencoder
    x: Tensor  # [2, 3, d_in]
    indices: Tensor
    values: Tensor
    expected: dict[str, Tensor]

    @property
    def rows(self) -> FeatureRows:
        return self.sae.features(self.indices)


def cases() -> list[str]:
    found = []
    for architecture in ARCHITECTURES:
        names = load_file(GOLDENS / f"sae_{architecture}.safetensors")
        found += [f"{architecture}/{name.removesuffix('.acts')}" for name in names if name.endswith(".acts")]
    return sorted(found)


CASES = cases()
READABLE = [case for case in CASES if not case.startswith("topk")]
STEERABLE = [case for case in READABLE if "transcoder" not in case]


@pytest.fixture
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    architecture, case = request.param.split("/")
    tensors = load_file(GOLDENS / f"sae_{architecture}.safetensors")
    weights = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
    write_saelens(tmp_path / "source", architecture, case, weights)
    return Golden(
        sae=SparseAutoencoder.open(canonicalise(tmp_path / "source", tmp_path / "saes")),
        x=tensors["x"],
        indices=tensors["indices"],
        values=tensors["values"],
        expected={n.removeprefix(f"{case}."): t for n, t in tensors.items() if n.startswith(f"{case}.")},
    )


def write_saelens(folder: Path, architecture: str, case: str, weights: dict[str, Tensor]) -> None:
    normalisation, b_dec, *rescale = case.split(".")
    folder.mkdir()
    save_file(weights, folder / "sae_weights.safetensors")
    cfg = {
        "architecture": architecture,
        "d_in": weights["W_enc"].shape[0],
        "d_sae": weights["W_enc"].shape[1],
        "normalize_activations": normalisation,
        "apply_b_dec_to_input": b_dec == "b_dec",
        "rescale_acts_by_decoder_norm": bool(rescale),
        "k": 6,
        "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.1.hook_resid_post"},
    }
    (folder / "cfg.json").write_text(json.dumps(cfg))


def assert_equals(actual: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest value."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_goldens_cover_every_combination() -> None:
    assert len(CASES) == 3 * 3 * 2 + 3 * 2 * 2 + 4 * 3  # (3 SAEs × b_dec, topk × b_dec × rescale, 4 transcoders) × norm
    for case in CASES:
        architecture, name = case.split("/")
        acts = load_file(GOLDENS / f"sae_{architecture}.safetensors")[f"{name}.acts"]
        assert 0.1 < float((acts > 0).float().mean()) < 0.9, case


@pytest.mark.parametrize("golden", CASES, indirect=True)
def test_encode_is_saelens_encode(golden: Golden) -> None:
    acts = golden.sae.encode(golden.x)
    assert_equals(acts, golden.expected["acts"])
    assert torch.equal(acts > 0, golden.expected["acts"] > 0)


@pytest.mark.parametrize("golden", CASES, indirect=True)
def test_reconstruct_is_saelens_forward(golden: Golden) -> None:
    assert_equals(golden.sae.reconstruct(golden.x), golden.expected["recon"])


@pytest.mark.parametrize("golden", [case for case in CASES if ".rescale" in case or case in READABLE], indirect=True)
def test_activations_are_in_the_units_of_a_folded_sae(golden: Golden) -> None:
    assert_equals(golden.sae.activations(golden.x), golden.expected["folded"])


@pytest.mark.parametrize("golden", READABLE, indirect=True)
def test_single_rows_equal_the_folded_sae(golden: Golden) -> None:
    z, _ = golden.sae.normalise(golden.x)
    acts = golden.rows.activations(z)
    expected = golden.expected["folded"][..., golden.indices]
    assert_equals(acts, expected)
    assert torch.equal(acts > 0, expected > 0)


@pytest.mark.parametrize("golden", READABLE, indirect=True)
def test_each_sequence_may_gather_its_own_rows(golden: Golden) -> None:
    index = torch.tensor([[0, 2, 4, 1], [3, 3, 1, 0]])  # [B, K]
    z, _ = golden.sae.normalise(golden.x)
    gathered = golden.rows[index]
    assert gathered.enc.shape == (2, 4, golden.sae.config.d_in)
    every = golden.rows.activations(z)  # [B, T, k]
    expected = torch.stack([every[b][:, index[b]] for b in range(2)])
    torch.testing.assert_close(gathered.activations(z), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("golden", [case for case in CASES if case not in READABLE], indirect=True)
def test_single_features_of_a_topk_sae_are_rejected(golden: Golden) -> None:
    assert not golden.sae.config.can_read_sparsely
    z, _ = golden.sae.normalise(golden.x)
    with pytest.raises(InvalidSae, match="topk"):
        golden.rows.activations(z)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("golden", STEERABLE, indirect=True)
def test_steering_is_saelens_with_edited_activations_and_its_error_term(golden: Golden, mode: Mode) -> None:
    assert_equals(golden.x + delta(golden, mode), golden.expected[mode])


def delta(golden: Golden, mode: Mode) -> Tensor:
    """c = clip(α + β·a, lo, hi); with β, the delta is scaled back to the residual stream."""
    z, gain = golden.sae.normalise(golden.x)
    acts = golden.rows.activations(z)  # [B, T, k]
    table = [
        coefficients(FeatureSetting(index=int(i), strength=float(v), mode=mode))
        for i, v in zip(golden.indices, golden.values, strict=True)
    ]
    alpha, beta = torch.tensor([c.alpha for c in table]), torch.tensor([c.beta for c in table])
    lo, hi = torch.tensor([c.lo for c in table]), torch.tensor([c.hi for c in table])
    c = (alpha + beta * acts).clamp(lo, hi)
    return (c @ golden.rows.dec) * (1.0 if mode == "add" else gain)


@pytest.mark.saelens
def test_saelens_reproduces_the_committed_goldens(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(Path(__file__).parent / "make_goldens.py"), str(tmp_path)], check=True)
    for architecture in ARCHITECTURES:
        name = f"sae_{architecture}.safetensors"
        fresh, committed = load_file(tmp_path / name), load_file(GOLDENS / name)
        assert fresh.keys() == committed.keys()
        for key, tensor in committed.items():
            assert_equals(fresh[key], tensor)
