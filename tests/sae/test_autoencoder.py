"""The arithmetic in two ways that must agree, limits, and results known in advance."""

import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import torch
from torch import Tensor

from millm.errors import InvalidSae, InvalidSteering
from millm.sae.activations import normalise
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.config import Architecture, SaeConfig
from millm.sae.formats.canonical import CanonicalHeader, store_canonical, tensor_shapes
from millm.sae.formats.reader import SourceSae

READABLE = [name for name in get_args(Architecture) if name != "topk"]
NORMALISATIONS = ["none", "layer_norm", "constant_norm_rescale"]
D_IN, D_SAE = 64, 512


def config(**settings: Any) -> SaeConfig:
    usual = {"architecture": "jumprelu", "d_in": D_IN, "d_sae": D_SAE, "d_out": settings.get("d_in", D_IN)}
    return SaeConfig(**(usual | {"source_format": "test", "dtype": "float32"} | settings))


def opened(root: Path, config: SaeConfig, tensors: dict[str, Tensor]) -> SparseAutoencoder:
    return SparseAutoencoder.open(store_canonical(SourceSae(config, tensors, sha256="0" * 64), root))


def random_tensors(config: SaeConfig, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    tensors = {name: torch.randn(shape) * 0.3 for name, shape in tensor_shapes(config).items()}
    return {name: (t.abs() if name == "threshold" else t).to(dtype) for name, t in tensors.items()}


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", READABLE)
def test_single_rows_and_the_full_dictionary_agree(tmp_path: Path, architecture: str, normalisation: str) -> None:
    is_transcoder = architecture.endswith("transcoder")
    facts = config(
        architecture=architecture, normalize_activations=normalisation, apply_b_dec_to_input=not is_transcoder
    )
    sae = opened(tmp_path, facts, random_tensors(facts))
    x, index = torch.randn(4, 9, D_IN), torch.randint(D_SAE, (40,))
    z, _ = sae.normalise(x)
    few, full_size = sae.features(index).activations(z), sae.activations(x)[..., index]
    torch.testing.assert_close(few, full_size, rtol=1e-5, atol=1e-5)
    assert torch.equal(few > 0, full_size > 0)
    torch.testing.assert_close(full_size, sae.encode(x)[..., index] * sae.decoder_norms()[index])


@pytest.mark.parametrize("k", [1, 7, D_SAE])
def test_topk_returns_the_k_largest_without_negative_values(tmp_path: Path, k: int) -> None:
    facts = config(architecture="topk", k=k)
    tensors = random_tensors(facts)
    x = torch.randn(20, D_IN)
    pre = x @ tensors["W_enc_T"].T + tensors["b_enc"]
    kth = pre.sort(dim=-1, descending=True).values[:, k - 1 : k]
    expected = torch.where(pre >= kth, pre.relu(), 0.0)
    torch.testing.assert_close(opened(tmp_path, facts, tensors).encode(x), expected)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_dictionary_of_signed_axes_reconstructs_its_input(tmp_path: Path, normalisation: str, center: bool) -> None:
    """relu(z) − relu(−z) = z: the output must undo every change of the input."""
    facts = config(
        architecture="standard",
        d_in=8,
        d_sae=16,
        d_out=8,
        normalize_activations=normalisation,
        apply_b_dec_to_input=True,
        center_inputs=center,
    )
    both = torch.cat([torch.eye(8), -torch.eye(8)])
    tensors = {"W_enc_T": both, "W_dec": both.clone(), "b_enc": torch.zeros(16), "b_dec": torch.randn(8)}
    x = torch.randn(5, 8) * 10 + 3
    torch.testing.assert_close(opened(tmp_path, facts, tensors).reconstruct(x), x, rtol=1e-4, atol=1e-4)


def test_centring_reads_the_residual_without_its_mean(tmp_path: Path) -> None:
    plain, centring = config(), config(center_inputs=True)
    tensors = random_tensors(plain)
    x = torch.randn(6, D_IN) + 2
    read = opened(tmp_path, centring, tensors).encode(x)
    torch.testing.assert_close(read, opened(tmp_path, plain, tensors).encode(x - x.mean(-1, keepdim=True)))
    assert not torch.allclose(read, opened(tmp_path, plain, tensors).encode(x))


def test_a_token_of_zeros_stays_finite() -> None:
    z, gain = normalise(torch.zeros(1, D_IN), config(normalize_activations="constant_norm_rescale"), None)
    assert torch.equal(z, torch.zeros(1, D_IN))
    assert isinstance(gain, Tensor)
    assert math.isfinite(float(gain))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_any_float_type_are_computed_with_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    facts = config()
    tensors = random_tensors(facts, dtype)
    sae = opened(tmp_path, facts, tensors)
    x = torch.randn(10, D_IN).to(torch.bfloat16)
    pre = x.double() @ tensors["W_enc_T"].T.double() + tensors["b_enc"].double()
    expected = pre.relu() * (pre > tensors["threshold"].double())
    assert sae.encode(x).dtype == sae.features([1]).enc.dtype == torch.float32
    torch.testing.assert_close(sae.encode(x).double(), expected, rtol=1e-4, atol=1e-4)


def test_decoder_rows_are_returned_as_unit_vectors_and_norms(tmp_path: Path) -> None:
    facts = config()
    tensors = random_tensors(facts)
    tensors["W_dec"][5] = 0.0  # a dead feature
    rows = opened(tmp_path, facts, tensors).features([9, 5, 511])
    torch.testing.assert_close(rows.dec * rows.dec_norm.unsqueeze(-1), tensors["W_dec"][[9, 5, 511]])
    torch.testing.assert_close(rows.dec.norm(dim=-1), torch.tensor([1.0, 0.0, 1.0]))


def test_order_and_repetition_of_features_are_preserved(tmp_path: Path) -> None:
    facts = config()
    sae = opened(tmp_path, facts, random_tensors(facts))
    rows = sae.features(torch.tensor([7, 3, 7]))
    assert torch.equal(rows.enc[0], rows.enc[2])
    assert torch.equal(rows[torch.tensor([1])].enc, sae.features([3]).enc)
    assert sae.features([]).dec.shape == (0, D_IN)


@pytest.mark.parametrize("index", [-1, D_SAE, 10**12])
def test_an_unknown_feature_is_rejected_with_the_valid_range(tmp_path: Path, index: int) -> None:
    facts = config()
    sae = opened(tmp_path, facts, random_tensors(facts))
    with pytest.raises(InvalidSteering, match=f"feature {index} does not exist.* 0 to {D_SAE - 1}"):
        sae.features([0, index])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": "topk"}, "needs k"),
        ({"architecture": "topk", "k": 0}, "k is 0; it must be 1 to d_sae 512"),
        ({"architecture": "topk", "k": D_SAE + 1}, "k is 513"),
        ({"k": 4}, "belong to topk"),
        ({"d_in": 0}, "at least 1"),
        ({"d_out": 3}, "d_out 3 must equal d_in 64"),
        ({"architecture": "transcoder", "apply_b_dec_to_input": True}, "apply_b_dec_to_input"),
    ],
)
def test_contradictory_configurations_are_rejected(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSae, match=message):
        config(**wrong)


@pytest.mark.parametrize(
    ("names", "layer"),
    [
        ({"hook_name": "blocks.20.hook_resid_post"}, 20),
        ({"hf_hook_name": "model.layers.7.self_attn.o_proj.input"}, 7),
        ({"hf_hook_name": "model.language_model.layers.31"}, 31),
        ({"hf_hook_name": "transformer.h.4.ln_2.output"}, 4),
        ({"hf_hook_name": "model.layers.8.output", "hook_name": "blocks.9.hook_resid_pre"}, 8),
        ({"hook_name": "hook_embed"}, None),
        ({}, None),
    ],
)
def test_the_layer_is_parsed_from_the_hook_name(names: dict[str, str], layer: int | None) -> None:
    assert config(**names).layer == layer


def test_sparse_reading_and_steering_per_architecture() -> None:
    kinds = {name: config(architecture=name, k=1 if name == "topk" else None) for name in get_args(Architecture)}
    assert [name for name, kind in kinds.items() if not kind.can_read_sparsely] == ["topk"]
    assert {name for name, kind in kinds.items() if not kind.steerable} == {
        name for name in kinds if name.endswith("transcoder")
    }


def test_a_configuration_survives_serialisation() -> None:
    facts = config(architecture="topk", k=3, rescale_acts_by_decoder_norm=True, hook_name="blocks.1.hook_resid_pre")
    assert msgspec.json.decode(msgspec.json.encode(facts), type=SaeConfig) == facts


# ------------------------------------------------------------------------------------------------------ memory

MEASURE = """
import psutil, sys, torch
from pathlib import Path
from millm.sae.autoencoder import SparseAutoencoder

def resident():
    return psutil.Process().memory_info().rss

sae = SparseAutoencoder.open(Path(sys.argv[1]))
torch.zeros(1, 64) @ torch.zeros(64, 64)  # the library's own start
before = resident()
sae.features([0, 1, 2, 3, 16383])
few = resident()
sae.encode(torch.zeros(1, sae.config.d_in))
print(few - before, resident() - few)
"""


def test_a_few_features_of_a_large_sae_do_not_load_it(tmp_path: Path) -> None:
    """Half a gibibyte of holes: reading all of it would show."""
    write_hollow(tmp_path, config(d_in=4096, d_sae=16384))
    output = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], check=True, capture_output=True).stdout
    few, full_size = (int(number) for number in output.split())
    assert few * 8 < full_size


def write_hollow(folder: Path, facts: SaeConfig) -> None:
    (folder / "config.json").write_bytes(msgspec.json.encode(CanonicalHeader(sha256="0" * 64, config=facts)))
    entries, end = {}, 0
    for name, shape in tensor_shapes(facts).items():
        size = 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "sae.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
