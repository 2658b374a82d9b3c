"""The hook table against TransformerLens' bridge: the tensors it records are the tensors we hook (test plan G7)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from millm.sae.hooks import capture, resolve_hook_point
from tests.fixtures.close import rounding, terms_of_path

GOLDENS = Path(__file__).parent / "goldens"
FAMILIES = ("gemma2", "llama", "gpt2")


def golden(path: Path) -> tuple[PreTrainedModel, list[int], dict[str, Tensor]]:
    """(model, ids, {hook point: the bridge's tensor [T, width]})."""
    with safe_open(path, "pt") as file:
        config = AutoConfig.for_model(**json.loads(file.metadata()["config"]))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.load_state_dict(under("weights.", tensors))
    return model, tensors["ids"].tolist(), under("bridge.", tensors)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def captured(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], PreTrainedModel]:
    model, ids, bridge = golden(path)
    return capture(model, [resolve_hook_point(model, name) for name in bridge], ids), bridge, model


def assert_rounded_otherwise_at_most(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], model: PreTrainedModel
) -> None:
    """On the machine that wrote the goldens the difference is 0.0 (GPT-2: 1.7e-6); another sums in another order."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        allowed = rounding(float(expected.abs().max()), terms_of_path(model.config, len(expected)))
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=allowed, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("family", FAMILIES)
def test_hook_points_equal_transformer_lens(family: str) -> None:
    ours, bridge, model = captured(GOLDENS / f"hooks_{family}.safetensors")
    assert len(ours) == 7
    assert_rounded_otherwise_at_most(ours, bridge, model)


def test_gemma2_raw_mlp_output_is_not_its_contribution() -> None:
    model, ids, bridge = golden(GOLDENS / "hooks_gemma2.safetensors")
    raw = capture(model, [resolve_hook_point(model, "layers.1.mlp.output")], ids)["layers.1.mlp.output"]
    assert (raw - bridge["blocks.1.hook_mlp_out"]).abs().max() > 1


@pytest.mark.saelens
def test_transformer_lens_reproduces_the_goldens_bit_for_bit(tmp_path: Path) -> None:
    script = Path(__file__).parent / "make_hook_goldens.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    for family in FAMILIES:
        ours, bridge, model = captured(tmp_path / f"hooks_{family}.safetensors")
        for name, seen in bridge.items():
            # the bridge splits GPT-2's fused projection in three: other sums, other rounding
            allowed = 1e-6 * seen.abs().max() if family == "gpt2" else 0.0
            assert (ours[name] - seen).abs().max() <= allowed, name
        _, committed, _ = captured(GOLDENS / f"hooks_{family}.safetensors")
        assert_rounded_otherwise_at_most(bridge, committed, model)
