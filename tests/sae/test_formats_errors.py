"""Unsupported or damaged files are rejected by name, before anything is written."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.formats import canonicalise
from tests.sae.test_formats import (
    D_IN,
    D_SAE,
    FLAT,
    MISTUDIO,
    SCOPE_2,
    Cfg,
    cfg,
    layouts,
    opened,
    weights,
    without,
    write,
    write_npz,
    write_scope_2,
)

TOPK = without(weights(), "threshold")
UNFOLDED = "expected_average_only_in"
BAD_CFGS: list[tuple[Cfg, dict[str, Tensor], str]] = [
    (cfg(architecture="temporal"), weights(), "architecture 'temporal' is not supported; supported are standard"),
    (cfg(architecture="matching_pursuit"), weights(), "'matching_pursuit' is not supported"),
    (cfg(architecture="crosscoder"), weights(), "'crosscoder' is not supported"),
    (cfg(architecture="skip"), weights(), "'skip' is not supported"),
    (cfg(architecture="topk"), TOPK, "needs k"),
    (cfg(architecture="topk", k=0), TOPK, "k is 0; it must be 1 to d_sae 10"),
    (cfg(architecture="topk", k=D_SAE + 1), TOPK, "k is 11"),
    (cfg(architecture="topk", k=2.5), TOPK, "k is 2.5; it must be an integer"),
    (FLAT | {"architecture": "standard", "activation_fn_str": "topk"}, TOPK, "needs k"),
    (FLAT | {"architecture": "gated", "activation_fn_str": "topk"}, weights(), "'topk' does not go with 'gated'"),
    (FLAT | {"activation_fn_str": "tanh-relu"}, weights(), "activation function 'tanh-relu'"),
    (cfg(normalize_activations=UNFOLDED), weights(), "needs a positive scaling_factor"),
    (cfg(normalize_activations=True), weights(), "needs a positive scaling_factor"),
    (cfg(normalize_activations=UNFOLDED, scaling_factor=0), weights(), "needs a positive scaling_factor"),
    (cfg(normalize_activations="covariance_whitening"), weights(), "'covariance_whitening' is not supported"),
    (cfg(d_in=D_IN + 1), weights(), r"tensor W_enc_T has shape \[10, 6\]; the configuration says \[10, 7\]"),
    (cfg(d_sae=D_SAE * 2), weights(), "tensor W_enc_T has shape"),
    (cfg(d_sae="many"), weights(), r"Expected `int`, got `str` - at `\$.d_sae`"),
    (cfg(d_sae=10**30), weights(), "d_sae"),
    (cfg(metadata={"hook_head_index": 4}), weights(), "hook_head_index 4"),
    (cfg(architecture="transcoder", apply_b_dec_to_input=True), TOPK, "apply_b_dec_to_input"),
    (cfg(), without(weights(), "b_enc"), "tensor b_enc is missing"),
    (cfg(), without(weights(), "W_enc"), "tensor W_enc is missing"),
    (cfg(), without(weights(), "threshold"), "tensor threshold is missing"),
    (cfg(architecture="standard"), weights(), "'threshold' is not part of architecture 'standard'"),
    (cfg(), weights() | {"W_dec": torch.randn(D_SAE, D_IN, 2)}, "tensor W_dec has shape"),
    (cfg(), weights() | {"b_enc": torch.arange(D_SAE)}, "tensor b_enc has type torch.int64"),
    (cfg(), weights() | {"topk_threshold": torch.ones(())}, "'topk_threshold' is not part of"),
    (cfg(architecture="batchtopk"), TOPK, "tensor threshold is missing"),
    (cfg(), weights() | {"scaling_factor": torch.full((D_SAE,), 2.0)}, "scaling_factor"),
    (cfg(), weights() | {"W_enc": torch.full((D_IN, D_SAE), torch.nan)}, "tensor W_enc_T holds NaN"),
    (cfg(), weights() | {"b_dec": torch.full((D_IN,), torch.inf)}, "tensor b_dec holds NaN or infinite"),
    (MISTUDIO | {"activation_fn_str": "topk", "extra_metadata": None}, TOPK, "top_k_sparsity is missing"),
    (MISTUDIO | {"extra_metadata": [1]}, TOPK, "extra_metadata"),
]


@pytest.mark.parametrize(("cfg", "tensors", "message"), BAD_CFGS, ids=[message for *_, message in BAD_CFGS])
def test_unsupported_files_are_rejected_by_name(
    tmp_path: Path, cfg: Cfg, tensors: dict[str, Tensor], message: str
) -> None:
    assert_refused(write(tmp_path / "source", cfg, tensors), message)


def assert_refused(source: Path, message: str) -> None:
    """By name, on one line without a path, and with nothing written."""
    root = source.parent / "canonical"
    with pytest.raises(InvalidSae, match=message) as refusal:
        canonicalise(source, root)
    assert str(source.parent) not in refusal.value.message
    assert "\n" not in refusal.value.message
    assert not root.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "cfg.json must hold a JSON object"),
        (b"{", "cfg.json cannot be read as JSON"),
        (b'{"d_in": NaN}', "cfg.json cannot be read as JSON"),
        (b'{"\xff": 1}', "cfg.json cannot be read as JSON"),
        (b'{"a":' + b"[" * 100_000, "cfg.json cannot be read as JSON"),
        (b"", "cfg.json cannot be read as JSON"),
        (b"{}", "missing required field `d_in`"),
    ],
)
def test_a_broken_configuration_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    source = write(tmp_path / "source", cfg(), weights())
    (source / "cfg.json").write_bytes(content)
    assert_refused(source, message)


@pytest.mark.parametrize("keep", [0, 4, 60, 300, -1])
def test_truncated_safetensors_are_rejected(tmp_path: Path, keep: int) -> None:
    source = write(tmp_path / "source", cfg(), weights())
    path = source / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(source, "sae_weights.safetensors is not a complete safetensors file")


@pytest.mark.parametrize("keep", [0, 4, 300, -1, -40])
def test_truncated_npz_is_rejected(tmp_path: Path, keep: int) -> None:
    path = write_npz(tmp_path / "source", weights()) / "params.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(tmp_path / "source", "params.npz is not a complete npz file")


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(os.environ["MILLM_TEST_TRACE"]),))


def test_an_npz_of_objects_is_rejected_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("MILLM_TEST_TRACE", str(trace))
    objects = np.array([Malicious()], dtype=object)
    (tmp_path / "source").mkdir()
    np.savez(tmp_path / "source" / "params.npz", allow_pickle=True, W_enc=objects)
    assert_refused(tmp_path / "source", "params.npz is not a complete npz file of plain numbers")
    assert not trace.exists()


def test_other_npz_contents_are_rejected(tmp_path: Path) -> None:
    assert_refused(write_npz(tmp_path / "a", weights() | {"extra": torch.ones(1)}), "'extra' is not part of")
    assert_refused(write_npz(tmp_path / "b", {"W_enc": np.array(["text"])}), "tensor W_enc has type <U4")
    assert_refused(write_npz(tmp_path / "c", weights() | {"W_dec": torch.ones(3)}), "tensor W_dec must be a matrix")
    assert_refused(write_npz(tmp_path / "d", without(weights(), "threshold")), "tensor threshold is missing")


@pytest.mark.parametrize("name", ["ae.pt", "sae.pth", "pytorch_model.bin"])
def test_pickles_are_never_opened(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(b"\x80\x04.")
    (source / "cfg.json").write_text(json.dumps(cfg()))
    assert_refused(source, f"{name} is a pickle.* convert it to safetensors")


def test_a_folder_without_an_sae_is_rejected(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent", "'absent' cannot be read: No such file")
    (tmp_path / "file").touch()
    assert_refused(tmp_path / "file", "cannot be read: Not a directory")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "must hold sae_weights.safetensors or params.npz or params.safetensors")
    source = write(tmp_path / "half", cfg(), weights())
    (source / "cfg.json").unlink()
    assert_refused(source, "cfg.json is missing")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "relu"}, "architecture"),
        ({"affine_connection": True}, "affine_connection is True"),
        ({"hf_hook_point_in": 3}, "hf_hook_point_in"),
        (None, "config.json is missing"),
    ],
)
def test_other_gemma_scope_2_configurations_are_rejected(tmp_path: Path, fields: Cfg | None, message: str) -> None:
    config = None if fields is None else SCOPE_2 | fields
    assert_refused(write_scope_2(tmp_path / "source", weights(), config), message)


def test_a_cross_layer_transcoder_is_rejected(tmp_path: Path) -> None:
    tensors = weights() | {"W_dec": torch.randn(D_SAE, 3, D_IN)}
    assert_refused(write_scope_2(tmp_path / "source", tensors, SCOPE_2), "tensor W_dec must be a matrix")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted(
    {*cfg(), *cfg()["metadata"], *FLAT, *MISTUDIO, "k", "scaling_factor", "activation_fn_kwargs", "hook_head_index"}
    | {"model_from_pretrained_kwargs", "exclude_special_tokens", "reshape_activations", "rescale_acts_by_decoder_norm"}
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from([cfg(), FLAT, MISTUDIO, SCOPE_2]),
    changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3),
    nested=st.booleans(),
)
def test_a_configuration_of_wrong_types_is_rejected_or_read(
    tmp_path: Path, base: Cfg, changes: Cfg, nested: bool
) -> None:
    shutil.rmtree(tmp_path / "canonical", ignore_errors=True)
    changed = base | ({"metadata": changes} if nested else changes)
    source = write(tmp_path / "source", changed, weights())
    try:
        sae = opened(source)
    except InvalidSae:
        assert not (tmp_path / "canonical").exists()
    else:
        assert sae.config.d_in == D_IN
        assert sae.encode(torch.ones(1, D_IN)).isfinite().all()


def pristine_copy(tmp_path: Path, layout: str) -> Path:
    if not (tmp_path / "pristine").exists():
        layouts(tmp_path / "pristine")
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    return shutil.copytree(tmp_path / "pristine" / layout, tmp_path / "source")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=st.sampled_from(["6", "npz", "scope2"]), data=st.data())
def test_a_file_with_one_changed_byte_is_rejected_or_read(tmp_path: Path, layout: str, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path / "canonical", ignore_errors=True)
    source = pristine_copy(tmp_path, layout)
    path = data.draw(st.sampled_from(sorted(source.iterdir())))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        opened(source)
    except InvalidSae:
        assert not (tmp_path / "canonical").exists()
