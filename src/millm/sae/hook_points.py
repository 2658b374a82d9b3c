"""The tensor behind a hook point's name, per model family: name → (layer, module path, side).

SAEs use TransformerLens' names; a Hugging Face model has no tensors of these names, only modules with an input and an
output. Tests compare the table with TransformerLens' own bridge, and every family with the arithmetic
resid_pre + attn_out + mlp_out = resid_post. Imports no torch and needs only a model's config.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from millm.errors import SaeMismatch

Side = Literal["input", "output"]


@dataclass(frozen=True)
class HookLocation:
    """One side of one module; the path is relative to the decoder layer, "" being the layer itself."""

    path: str
    side: Side


def _input_of(path: str) -> HookLocation:
    return HookLocation(path, "input")


def _output_of(path: str) -> HookLocation:
    return HookLocation(path, "output")


LENS_NAMES = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "hook_z": "attn.hook_z",
    "mlp_in": "mlp.hook_in",
}
"""Our kinds and TransformerLens' names; `hook_z` is [B, T, heads·head_dim] here, heads not split."""
_RESIDUAL = {"resid_pre": _input_of(""), "resid_post": _output_of("")}
_PRE_NORM = {
    "resid_mid": _input_of("post_attention_layernorm"),
    "attn_out": _output_of("self_attn"),
    "mlp_out": _output_of("mlp"),
    "hook_z": _input_of("self_attn.o_proj"),
    "mlp_in": _input_of("mlp"),
}
# A second norm follows attention and MLP; its output is added to the residual stream.
_SANDWICH_NORM = {
    "resid_mid": _input_of("pre_feedforward_layernorm"),
    "attn_out": _output_of("post_attention_layernorm"),
    "mlp_out": _output_of("post_feedforward_layernorm"),
    "hook_z": _input_of("self_attn.o_proj"),
    "mlp_in": _input_of("mlp"),
}
_POST_NORM = {
    "resid_mid": _input_of("mlp"),
    "attn_out": _output_of("post_attention_layernorm"),
    "mlp_out": _output_of("post_feedforward_layernorm"),
    "hook_z": _input_of("self_attn.o_proj"),
}


def _gpt_family(attention: str, projection: str, middle_norm: str | None = None) -> dict[str, HookLocation]:
    """Families with GPT-2's module names; without a `middle_norm` they run attention and MLP in parallel."""
    middle = {"resid_mid": _input_of(middle_norm)} if middle_norm else {}
    return middle | {
        "attn_out": _output_of(attention),
        "mlp_out": _output_of("mlp"),
        "hook_z": _input_of(f"{attention}.{projection}"),
        "mlp_in": _input_of("mlp"),
    }


_FAMILIES: dict[str, dict[str, HookLocation]] = {
    **dict.fromkeys(["llama", "mistral", "mixtral", "gemma", "phi3", "smollm3", "stablelm"], _PRE_NORM),
    **dict.fromkeys(["qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "starcoder2", "gpt_oss"], _PRE_NORM),
    **dict.fromkeys(["gemma2", "gemma3_text"], _SANDWICH_NORM),
    **dict.fromkeys(["olmo2", "olmo3"], _POST_NORM),
    "gpt2": _gpt_family("attn", "c_proj", "ln_2"),
    "gpt_neo": _gpt_family("attn", "attention.out_proj", "ln_2"),
    "gptj": _gpt_family("attn", "out_proj"),
    "gpt_neox": _gpt_family("attention", "dense", "post_attention_layernorm"),
    "falcon": _gpt_family("self_attention", "dense", "post_attention_layernorm"),
    "phi": _gpt_family("self_attn", "dense"),
    "cohere": _gpt_family("self_attn", "o_proj"),
    # OPT's MLP is not a module of its own, and its input is [B·T, d].
    "opt": {"attn_out": _output_of("self_attn"), "hook_z": _input_of("self_attn.out_proj")},
    # Bloom adds the residual inside its attention and MLP: their contribution is the output of the last projection.
    "bloom": _gpt_family("self_attention", "dense", "post_attention_layernorm")
    | {"attn_out": _output_of("self_attention.dense"), "mlp_out": _output_of("mlp.dense_4h_to_h")},
}
_UNSUPPORTED_HOOKS = {
    "hook_embed": "attach it at `blocks.0.hook_resid_pre` if the model adds no position embedding",
    "hook_mlp_in": "it is one tensor in TransformerLens and another in Gemma Scope 2; "
    "use the Hugging Face name, e.g. `layers.20.pre_feedforward_layernorm.output`",
    "ln2.hook_normalized": "no Hugging Face module computes the norm without its gain",
}
_LENS_PATTERN = re.compile(r"(?:blocks\.(?P<layer>\d+)\.)?(?P<point>[a-z0-9_.]*hook_[a-z_]+)")
_MODULE_PATTERN = re.compile(
    r"(?:(?:model|language_model|text_model|decoder|transformer|gpt_neox|base_model)\.)*"
    r"(?:layers|h)\.(?P<layer>\d+)(?P<path>(?:\.\w+)*?)(?:\.(?P<side>input|output))?"
)


def parse_hook_name(name: str) -> tuple[int, str]:
    """(layer, kind) of a hook point's name.

    Supported: `blocks.20.hook_resid_post` and the other names of `LENS_NAMES`; `model.layers.20` (its output);
    `layers.20.mlp.output`, whose kind is `mlp.output`. Raises SaeMismatch for other names.
    """
    if match := _LENS_PATTERN.fullmatch(name):
        return _parse_lens_point(name, match["layer"], match["point"])
    if match := _MODULE_PATTERN.fullmatch(name):
        location = HookLocation(match["path"].removeprefix("."), "input" if match["side"] == "input" else "output")
        return int(match["layer"]), _kind_of_location(location, _RESIDUAL)
    raise SaeMismatch(
        f"{name!r} is not the name of a hook point: write `blocks.20.hook_resid_post` or `model.layers.20`",
        param="hook_point",
    )


def _parse_lens_point(name: str, layer: str | None, point: str) -> tuple[int, str]:
    kinds = {lens: kind for kind, lens in LENS_NAMES.items()}
    if layer is not None and point in kinds:
        return int(layer), kinds[point]
    reason = _UNSUPPORTED_HOOKS.get(point, f"known are `blocks.N.` + {', '.join(kinds)}")
    raise SaeMismatch(f"hook point {name!r} is not supported: {reason}", param="hook_point")


def hook_locations(config: Any) -> dict[str, HookLocation]:
    """All kinds of a text model's family; an unknown family has the residual stream only."""
    table = _RESIDUAL | _FAMILIES.get(config.model_type, {})
    if getattr(config, "use_parallel_residual", False):
        # The input of GPT-NeoX's second norm is then the layer's input.
        table.pop("resid_mid", None)
    return table


def is_known_family(config: Any) -> bool:
    """Whether the hook points of this text model's family are in the table."""
    return config.model_type in _FAMILIES


def find_location(kind: str, table: dict[str, HookLocation]) -> tuple[str, HookLocation] | None:
    """(canonical kind, location) in this family, or None when the family lacks the kind."""
    if kind in LENS_NAMES:
        return (kind, table[kind]) if kind in table else None
    path, _, side = kind.rpartition(".")
    location = _input_of(path) if side == "input" else _output_of(path)
    return _kind_of_location(location, table), location


def _kind_of_location(location: HookLocation, table: dict[str, HookLocation]) -> str:
    return next((kind for kind, known in table.items() if known == location), f"{location.path}.{location.side}")


def hook_point_name(layer: int, kind: str) -> str:
    """`blocks.20.hook_resid_post`, or `layers.20.mlp.gate_proj.output` without a name in TransformerLens."""
    return f"blocks.{layer}.{LENS_NAMES[kind]}" if kind in LENS_NAMES else f"layers.{layer}.{kind}"
