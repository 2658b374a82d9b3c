"""Supported SAE formats, architectures and hook points, from the code."""

from types import SimpleNamespace
from typing import get_args

from millm.hub import sae_layout as recognised
from millm.sae import formats
from millm.sae.config import Architecture, Normalisation
from millm.sae.conversion.protocol import ConversionFormat
from millm.sae.hook_points import _FAMILIES, LENS_NAMES, HookLocation, hook_locations
from tools.field_tables import table

LEAD = """Which SAEs miLLM reads, and where in a model they can be attached. `millm saes --model MODEL` lists the public
SAEs for a model and how each is read.
"""

NATIVE = {
    "sae_weights.safetensors": "SAELens (version 6, and older flat `cfg.json`), miStudio's `community_format`",
    "params.npz": "Gemma Scope",
    "params.safetensors": "Gemma Scope 2",
}
"""File that identifies the layout → its publisher."""

CONVERTED: dict[ConversionFormat, str] = {
    "dictionary_learning": "dictionary_learning (standard, TopK, gated, BatchTopK, Matryoshka, JumpReLU)",
    "llama_scope": "Llama Scope (`fnlp/Llama3_1-8B-Base-LX…`)",
    "llama_scope_r1_distill": "Llama Scope for DeepSeek-R1-Distill-Llama-8B",
    "qwen_scope": "Qwen Scope",
    "sparsify": "EleutherAI's sparsify",
    "torch_linear": "Goodfire's Llama SAEs and others that are two `torch.nn.Linear`",
    "mwhanna": "Qwen3 transcoders of mwhanna",
    "connor_rob": "attention SAEs of Connor Kissane and Rob Krzyzanowski (`hook_z`)",
}
STEERABLE = {
    "standard": "steer and watch",
    "jumprelu": "steer and watch; BatchTopK and Matryoshka SAEs are JumpReLU at inference",
    "gated": "steer and watch",
    "topk": "steer and watch; reading one feature computes the full dictionary",
    "transcoder": "watch",
    "skip_transcoder": "watch",
    "jumprelu_transcoder": "watch",
    "jumprelu_skip_transcoder": "watch",
}
NORMALISED = {
    "none": "none",
    "layer_norm": "mean subtracted, divided by the standard deviation, per token",
    "constant_norm_rescale": "scaled to length √d, per token",
}

REFUSED = """Refused by name: any other architecture or normalisation (temporal, matching pursuit), weights that are not
finite, `topk` without `k`, `expected_average_only_in` without its factor. Pickles are read only in the formats above
that have no other form, as tensors alone, in a process without secrets
([decision 12](../decisions/0012-other-libraries-saes-are-read-here.md)).
"""

HOOKS = """A hook point has TransformerLens' name, `blocks.20.hook_resid_post`, or the name of the model's module,
`model.layers.20.mlp.output`. The residual stream (`resid_pre`, `resid_post`) exists in every model that
`AutoModelForCausalLM` loads. The other names exist for the families below: the table gives the module and its side,
relative to the decoder layer.
"""


def body() -> str:
    return "\n".join(
        [
            LEAD,
            "## Formats\n",
            table(("file", "format", "how"), _formats()),
            REFUSED,
            "## Architectures\n",
            table(("architecture", "use"), _described(STEERABLE, get_args(Architecture))),
            "## Normalisation of the SAE's input\n",
            table(("`normalize_activations`", ""), _described(NORMALISED, get_args(Normalisation))),
            "`expected_average_only_in` is folded into the weights where the catalogue knows the factor.\n",
            "## Hook points by model family\n",
            HOOKS,
            table(("kind", "name"), [(f"`{kind}`", f"`blocks.N.{name}`") for kind, name in LENS_NAMES.items()]),
            table(("family (`model_type`)", *(f"`{kind}`" for kind in _kinds())), _families()),
            "Other families have `resid_pre` and `resid_post`, and every module by its own name.\n",
        ]
    )


def _formats() -> list[tuple[str, ...]]:
    assert set(NATIVE) == set(formats._READERS)
    assert set(CONVERTED) == set(get_args(ConversionFormat))
    native: list[tuple[str, ...]] = [(f"`{file}`", whose, "directly") for file, whose in NATIVE.items()]
    return native + [(", ".join(_files(format)), whose, "converted once") for format, whose in CONVERTED.items()]


def _files(format: ConversionFormat) -> list[str]:
    folders, files = dict(recognised._FOLDER_LAYOUTS), dict(recognised._FILE_LAYOUTS)
    if format in folders:
        return [f"`{name}`" for name in folders[format]]
    return [f"`{files[format].pattern}`"] if format in files else ["`*.pt`", "`*_cfg.json`"]


def _described(descriptions: dict[str, str], known: tuple[str, ...]) -> list[tuple[str, ...]]:
    assert set(descriptions) == set(known)
    return [(f"`{name}`", descriptions[name]) for name in known]


def _kinds() -> list[str]:
    return [kind for kind in LENS_NAMES if not kind.startswith("resid_p")]


def _families() -> list[tuple[str, ...]]:
    """Families with the same table share a row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for family in _FAMILIES:
        found = hook_locations(SimpleNamespace(model_type=family))
        rows.setdefault(tuple(_place(found.get(kind)) for kind in _kinds()), []).append(f"`{family}`")
    return [(", ".join(sorted(families)), *cells) for cells, families in rows.items()]


def _place(place: HookLocation | None) -> str:
    return f"`{place.path}` {place.side}" if place else "–"
