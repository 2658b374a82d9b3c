"""Names of hook points, and the effect of hooks on a model."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPTJConfig, GraniteConfig, LlamaConfig, PreTrainedModel

from millm.errors import InvalidModel, SaeMismatch
from millm.sae.hook_points import parse_hook_name
from millm.sae.hooks import capture, decoder_layers, resolve_hook_point, width_at

IDS = [[5, 6, 7, 8, 9], [11, 3, 12, 4, 13]]


def tiny_llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        initializer_range=0.3,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def tiny_gptj() -> PreTrainedModel:
    """Its layers return a tuple."""
    torch.manual_seed(0)
    config = GPTJConfig(vocab_size=32, n_embd=16, n_layer=2, n_head=4, n_positions=32, rotary_dim=4)
    return AutoModelForCausalLM.from_config(config).eval()


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits  # [2, 5, vocabulary]


def hooks_left(model: PreTrainedModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# ------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("blocks.20.hook_resid_post", (20, "resid_post")),
        ("blocks.0.hook_resid_pre", (0, "resid_pre")),
        ("blocks.3.attn.hook_z", (3, "hook_z")),
        ("blocks.3.mlp.hook_in", (3, "mlp_in")),
        ("model.layers.20", (20, "resid_post")),
        ("model.layers.20.output", (20, "resid_post")),
        ("model.layers.20.input", (20, "resid_pre")),
        ("model.language_model.layers.7.mlp.output", (7, "mlp.output")),
        ("layers.7.self_attn.o_proj.input", (7, "self_attn.o_proj.input")),
        ("transformer.h.11", (11, "resid_post")),
        ("gpt_neox.layers.2.mlp", (2, "mlp.output")),
    ],
)
def test_both_naming_schemes_are_parsed(name: str, meaning: tuple[int, str]) -> None:
    assert parse_hook_name(name) == meaning


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hook_embed", "resid_pre"),
        ("blocks.5.ln2.hook_normalized", "gain"),
        ("blocks.5.hook_mlp_in", "Gemma Scope 2"),
        ("blocks.5.attn.hook_pattern", "attn.hook_z"),
        ("vision_tower.encoder.layers.3", "model.layers.20"),
        ("layer 20", "blocks.20.hook_resid_post"),
    ],
)
def test_other_names_are_rejected_with_a_remedy(name: str, message: str) -> None:
    with pytest.raises(SaeMismatch, match=message) as refusal:
        parse_hook_name(name)
    assert name in refusal.value.message


def test_one_tensor_has_one_name() -> None:
    model = tiny_llama()
    assert resolve_hook_point(model, "model.layers.1.mlp.output") == resolve_hook_point(model, "blocks.1.hook_mlp_out")
    assert resolve_hook_point(model, "model.layers.1") == resolve_hook_point(model, "blocks.1.hook_resid_post")
    assert resolve_hook_point(model, "layers.1.mlp.gate_proj").name == "layers.1.mlp.gate_proj.output"


def test_a_missing_hook_point_is_rejected_with_the_available_ones() -> None:
    model = tiny_llama()
    with pytest.raises(SaeMismatch, match="layers 0 to 2"):
        resolve_hook_point(model, "blocks.3.hook_resid_post")
    with pytest.raises(SaeMismatch, match=r"hook_resid_mid"):
        resolve_hook_point(model, "layers.1.post_feedforward_layernorm.output")
    with pytest.raises(SaeMismatch, match=r"gptj.*hook_attn_out"):
        resolve_hook_point(tiny_gptj(), "blocks.1.hook_resid_mid")


def test_an_unknown_family_has_its_residual_stream_only() -> None:
    # Granite scales what attention and MLP return: their outputs are not what is added.
    granite = GraniteConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4
    )
    model = AutoModelForCausalLM.from_config(granite).eval()
    assert width_at(model, resolve_hook_point(model, "blocks.1.hook_resid_post")) == 16
    with pytest.raises(SaeMismatch, match=r"they have hook_resid_pre, hook_resid_post$"):
        resolve_hook_point(model, "blocks.1.hook_attn_out")


def test_a_model_without_decoder_layers_is_rejected() -> None:
    model = tiny_llama()
    model.config.num_hidden_layers = 7
    with pytest.raises(InvalidModel, match="7 decoder layers"):
        decoder_layers(model)


# ------------------------------------------------------------------------------------------- effect of a hook


POINTS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@pytest.mark.parametrize("point", POINTS)
def test_all_rows_of_a_batch_are_steered_and_no_hook_remains(point: str) -> None:
    model = tiny_llama()
    before = logits(model)
    handle = resolve_hook_point(model, f"blocks.1.hook_{point}").register(lambda x: x + 1.0)
    steered = logits(model)
    handle.remove()
    assert (steered - before).abs().amax(dim=(1, 2)).min() > 1e-3  # the smaller change of the two rows
    assert torch.equal(logits(model), before)
    assert hooks_left(model) == 0


def test_a_layer_that_returns_a_tuple_is_steered_in_every_row() -> None:
    model = tiny_gptj()
    before = logits(model)
    with resolve_hook_point(model, "blocks.0.hook_resid_post").register(lambda x: x + torch.linspace(-1, 1, 16)):
        assert (logits(model) - before).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("point", [*POINTS, "z"])
def test_a_function_that_returns_none_leaves_the_pass_bit_identical(point: str) -> None:
    model = tiny_llama()
    before = logits(model)
    name = f"blocks.1.{'attn.' if point == 'z' else ''}hook_{point}"
    for decline in (lambda x: None, lambda x: x):
        with resolve_hook_point(model, name).register(decline):
            assert torch.equal(logits(model), before)


def test_an_untouched_output_is_the_same_object() -> None:
    model = tiny_llama()
    outputs: list[Tensor] = []
    layer = decoder_layers(model)[1]
    layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    seen: list[Tensor] = []
    resolve_hook_point(model, "blocks.1.hook_resid_post").register(seen.append)
    logits(model)
    assert seen[0] is outputs[0]


def test_the_result_has_the_models_dtype() -> None:
    model = tiny_llama().to(torch.bfloat16)
    point = resolve_hook_point(model, "blocks.1.hook_resid_post")
    with point.register(lambda x: x.float() + 1.0):
        assert logits(model).dtype == torch.bfloat16
    assert capture(model, [point], IDS[0])[point.name].dtype == torch.float32


def test_steering_is_seen_by_output_hidden_states() -> None:
    model = tiny_llama()
    with torch.no_grad():
        plain = model(torch.tensor(IDS), output_hidden_states=True).hidden_states[2]
        with resolve_hook_point(model, "blocks.1.hook_resid_post").register(lambda x: x + 1.0):
            steered = model(torch.tensor(IDS), output_hidden_states=True).hidden_states[2]
    assert torch.equal(steered, plain + 1.0)


def test_an_exception_propagates_and_the_model_stays_usable() -> None:
    def fail(x: Tensor) -> None:
        raise ZeroDivisionError("inside the tap")

    model = tiny_llama()
    before = logits(model)
    handle = resolve_hook_point(model, "blocks.1.hook_resid_mid").register(fail)
    with handle, pytest.raises(ZeroDivisionError, match="inside the tap"):
        logits(model)
    assert torch.equal(logits(model), before)


# ------------------------------------------------------------------------------------------------- capturing


def test_capture_equals_the_models_hidden_states() -> None:
    model = tiny_llama()
    points = [resolve_hook_point(model, f"blocks.{layer}.hook_resid_pre") for layer in range(3)]
    seen = capture(model, points, IDS[1])
    with torch.no_grad():
        states = model(torch.tensor(IDS[1:]), output_hidden_states=True).hidden_states
    for layer, point in enumerate(points):
        assert torch.equal(seen[point.name], states[layer][0])


def test_capture_reads_before_steering() -> None:
    model = tiny_llama()
    point = resolve_hook_point(model, "blocks.1.hook_resid_mid")
    before = capture(model, [point], IDS[0])
    with point.register(lambda x: x + 1.0):
        assert torch.equal(capture(model, [point], IDS[0])[point.name], before[point.name])


def test_capture_removes_its_hooks_after_an_error() -> None:
    model = tiny_llama()
    point = resolve_hook_point(model, "blocks.1.hook_resid_post")
    with pytest.raises(IndexError):
        capture(model, [point], [10_000])
    assert hooks_left(model) == 0


def test_a_module_that_never_runs_is_rejected() -> None:
    model = tiny_llama()
    decoder_layers(model)[1].spare = nn.Linear(16, 16)
    with pytest.raises(SaeMismatch, match=r"layers\.1\.spare\.output.*not reached"):
        width_at(model, resolve_hook_point(model, "layers.1.spare"))


def test_width_is_measured_where_the_sae_reads() -> None:
    model = tiny_llama()
    assert width_at(model, resolve_hook_point(model, "blocks.1.hook_resid_post")) == 16
    assert width_at(model, resolve_hook_point(model, "layers.1.mlp.gate_proj.output")) == 32
