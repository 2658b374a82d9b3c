"""Which tensor a hook point's name means, family by family: names in, (layer, module path, side) out.

TransformerLens names are the common language of SAEs; a Hugging Face model has no such tensors by name, only
modules with an input and an output. The table is held against TransformerLens' own bridge, and every family
against arithmetic: resid_pre + attn_out + mlp_out = resid_post. Knows no torch and no model, only a config.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from millm.errors import SaeMismatch

Side = Literal["input", "output"]


@dataclass(frozen=True)
class Place:
    """One side of one module; the path is relative to the decoder layer, "" being the layer itself."""

    path: str
    side: Side


def _in(path: str) -> Place:
    return Place(path, "input")


def _out(path: str) -> Place:
    return Place(path, "output")


LENS_NAMES = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "hook_z": "attn.hook_z",
    "mlp_in": "mlp.hook_in",
}
"""Our kinds and what TransformerLens calls them; `hook_z` is [B, T, heads·head_dim] here, heads not split."""

_RESIDUAL = {"resid_pre": _in(""), "resid_post": _out("")}

_PRE_NORM = {
    "resid_mid": _in("post_attention_layernorm"),
    "attn_out": _out("self_attn"),
    "mlp_out": _out("mlp"),
    "hook_z": _in("self_attn.o_proj"),
    "mlp_in": _in("mlp"),
}
# A second norm stands after attention and MLP, so that only what leaves it is added to the residual stream.
_SANDWICH = {
    "resid_mid": _in("pre_feedforward_layernorm"),
    "attn_out": _out("post_attention_layernorm"),
    "mlp_out": _out("post_feedforward_layernorm"),
    "hook_z": _in("self_attn.o_proj"),
    "mlp_in": _in("mlp"),
}
_POST_NORM = {
    "resid_mid": _in("mlp"),
    "attn_out": _out("post_attention_layernorm"),
    "mlp_out": _out("post_feedforward_layernorm"),
    "hook_z": _in("self_attn.o_proj"),
}


def _gpt(attention: str, projection: str, middle: str | None = None) -> dict[str, Place]:
    """Families named after GPT-2's ways; those without a `middle` norm run attention and MLP side by side."""
    between = {"resid_mid": _in(middle)} if middle else {}
    return between | {
        "attn_out": _out(attention),
        "mlp_out": _out("mlp"),
        "hook_z": _in(f"{attention}.{projection}"),
        "mlp_in": _in("mlp"),
    }


_FAMILIES: dict[str, dict[str, Place]] = {
    **dict.fromkeys(["llama", "mistral", "mixtral", "gemma", "phi3", "smollm3", "stablelm"], _PRE_NORM),
    **dict.fromkeys(["qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "starcoder2", "gpt_oss"], _PRE_NORM),
    **dict.fromkeys(["gemma2", "gemma3_text"], _SANDWICH),
    **dict.fromkeys(["olmo2", "olmo3"], _POST_NORM),
    "gpt2": _gpt("attn", "c_proj", "ln_2"),
    "gpt_neo": _gpt("attn", "attention.out_proj", "ln_2"),
    "gptj": _gpt("attn", "out_proj"),
    "gpt_neox": _gpt("attention", "dense", "post_attention_layernorm"),
    "falcon": _gpt("self_attention", "dense", "post_attention_layernorm"),
    "phi": _gpt("self_attn", "dense"),
    "cohere": _gpt("self_attn", "o_proj"),
    # OPT's MLP is no module of its own and sees [B·T, d].
    "opt": {"attn_out": _out("self_attn"), "hook_z": _in("self_attn.out_proj")},
    # Bloom adds the residual inside its attention and MLP: what they contribute leaves their last projection.
    "bloom": _gpt("self_attention", "dense", "post_attention_layernorm")
    | {"attn_out": _out("self_attention.dense"), "mlp_out": _out("mlp.dense_4h_to_h")},
}

_NOT_A_TENSOR_HERE = {
    "hook_embed": "attach it at `blocks.0.hook_resid_pre` if the model adds no position embedding",
    "hook_mlp_in": "TransformerLens and Gemma Scope 2 mean different tensors by it; "
    "use the Hugging Face name, e.g. `layers.20.pre_feedforward_layernorm.output`",
    "ln2.hook_normalized": "no Hugging Face module computes the norm without its gain",
}

_LENS = re.compile(r"(?:blocks\.(?P<layer>\d+)\.)?(?P<point>[a-z0-9_.]*hook_[a-z_]+)")
_HUGGING_FACE = re.compile(
    r"(?:(?:model|language_model|text_model|decoder|transformer|gpt_neox|base_model)\.)*"
    r"(?:layers|h)\.(?P<layer>\d+)(?P<path>(?:\.\w+)*?)(?:\.(?P<side>input|output))?"
)


def parse(name: str) -> tuple[int, str]:
    """(layer, kind) of a hook point's name.

    Understood: `blocks.20.hook_resid_post` and the other names of `LENS_NAMES`; `model.layers.20` (its
    output); `layers.20.mlp.output`, whose kind is `mlp.output`. Raises SaeMismatch for any other, by name.
    """
    if found := _LENS.fullmatch(name):
        return _lens_point(name, found["layer"], found["point"])
    if found := _HUGGING_FACE.fullmatch(name):
        place = Place(found["path"].removeprefix("."), "input" if found["side"] == "input" else "output")
        return int(found["layer"]), _kind(place, _RESIDUAL)
    raise SaeMismatch(
        f"{name!r} is not the name of a hook point: write `blocks.20.hook_resid_post` or `model.layers.20`",
        param="hook_point",
    )


def _lens_point(name: str, layer: str | None, point: str) -> tuple[int, str]:
    kinds = {lens: kind for kind, lens in LENS_NAMES.items()}
    if layer is not None and point in kinds:
        return int(layer), kinds[point]
    why = _NOT_A_TENSOR_HERE.get(point, f"known are `blocks.N.` + {', '.join(kinds)}")
    raise SaeMismatch(f"hook point {name!r} is not supported: {why}", param="hook_point")


def places(config: Any) -> dict[str, Place]:
    """Every kind this text model's family has; a family we have not checked has the residual stream only."""
    table = _RESIDUAL | _FAMILIES.get(config.model_type, {})
    if getattr(config, "use_parallel_residual", False):
        # GPT-NeoX keeps the second norm but feeds it the layer's input: nothing lies in the middle.
        table.pop("resid_mid", None)
    return table


def is_known(config: Any) -> bool:
    """Has this text model's family been checked?"""
    return config.model_type in _FAMILIES


def locate(kind: str, table: dict[str, Place]) -> tuple[str, Place] | None:
    """A kind's place and the one name that place goes by in this family; None where the family lacks it."""
    if kind in LENS_NAMES:
        return (kind, table[kind]) if kind in table else None
    path, _, side = kind.rpartition(".")
    place = _in(path) if side == "input" else _out(path)
    return _kind(place, table), place


def _kind(place: Place, table: dict[str, Place]) -> str:
    return next((kind for kind, known in table.items() if known == place), f"{place.path}.{place.side}")


def full_name(layer: int, kind: str) -> str:
    """`blocks.20.hook_resid_post`, or `layers.20.mlp.gate_proj.output` where TransformerLens has no name."""
    return f"blocks.{layer}.{LENS_NAMES[kind]}" if kind in LENS_NAMES else f"layers.{layer}.{kind}"
