"""What a SAELens `cfg.json` says, of version 6 with its `metadata` or flat as before it.

Defaults are SAELens' own (`handle_pre_6_0_config`), except where it would guess: a missing k, a scale it never
applies and an unknown architecture are refused. Knows no tensor.
"""

from typing import Any, Literal, get_args

import msgspec

from millm.errors import InvalidSae
from millm.sae.config import Architecture, Normalisation, Width, require_architecture, require_normalisation
from millm.sae.formats.source import convert_to_struct

SAELENS_CONFIG = "cfg.json"
BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")

_NEW_FIELD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_JUMPRELU_ARCHITECTURES = ("jumprelu", "jumprelu_transcoder", "jumprelu_skip_transcoder")
_COMPATIBLE_ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "relu": get_args(Architecture),
    "topk": ("topk",),
    "jumprelu": _JUMPRELU_ARCHITECTURES,
}
"""Which architectures an activation function of the flat configurations may name."""


class _ActivationKwargs(msgspec.Struct, frozen=True):
    k: int | float | None = None


class _ModelKwargs(msgspec.Struct, frozen=True):
    center_writing_weights: bool = False


class SaelensMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """How the SAE is used."""

    model_name: str | None = None
    hook_name: str | None = None
    hf_hook_name: str | None = None
    hook_name_out: str | None = None
    hook_head_index: int | None = None
    exclude_special_tokens: bool | list[int] | None = None
    model_from_pretrained_kwargs: _ModelKwargs | None = None


class SaelensConfig(SaelensMetadata, frozen=True, kw_only=True):
    """`cfg.json` with the names of version 6; fields we do not use are left out."""

    d_in: Width
    d_sae: Width
    architecture: str = "standard"
    activation_fn: str = "relu"
    activation_fn_kwargs: _ActivationKwargs | None = None
    k: int | float | None = None
    rescale_acts_by_decoder_norm: bool | None = None
    apply_b_dec_to_input: bool | None = None
    normalize_activations: str | bool | None = None
    reshape_activations: Literal["none", "hook_z"] | None = None
    scaling_factor: float | None = None
    norm_scaling_factor: float | None = None
    metadata: SaelensMetadata = SaelensMetadata()
    converted_from: str = "saelens"
    """The library whose files `millm.sae.convert` made this of."""

    @property
    def merged_metadata(self) -> SaelensMetadata:
        """The metadata, each field from where it is: under `metadata` or at the top."""
        nested = msgspec.structs.asdict(self.metadata)
        return SaelensMetadata(
            **{name: getattr(self, name) if value is None else value for name, value in nested.items()}
        )


def parse_saelens_config(raw: dict[str, Any]) -> SaelensConfig:
    """Raises InvalidSae naming the field whose type is wrong."""
    cfg = convert_to_struct(
        {_NEW_FIELD_NAMES.get(name, name): value for name, value in raw.items()}, SaelensConfig, SAELENS_CONFIG
    )
    if cfg.merged_metadata.hook_head_index is not None:
        raise InvalidSae(
            f"{SAELENS_CONFIG}: hook_head_index {cfg.merged_metadata.hook_head_index}: SAEs of a single head are not supported"
        )
    return cfg


def inference_architecture(cfg: SaelensConfig) -> Architecture:
    """What the weights are at inference. Raises InvalidSae when unknown or at odds with the activation function."""
    name = "jumprelu" if cfg.architecture in BATCH_TOPK else cfg.architecture
    if cfg.activation_fn == "topk" and name == "standard":
        name = "topk"
    known = require_architecture(name)
    if known not in _COMPATIBLE_ARCHITECTURES.get(cfg.activation_fn, ()):
        raise InvalidSae(
            f"{SAELENS_CONFIG}: activation function {cfg.activation_fn!r} does not go with {cfg.architecture!r}"
        )
    return known


def parse_k(cfg: SaelensConfig) -> int | None:
    """How many features a topk SAE keeps. Raises InvalidSae when it is not a whole number."""
    kwargs = cfg.activation_fn_kwargs
    found = kwargs.k if kwargs is not None and kwargs.k is not None else cfg.k
    if found is not None and found != int(found):
        raise InvalidSae(f"{SAELENS_CONFIG}: k is {found}; it must be a whole number")
    return None if found is None else int(found)


def has_input_scale(cfg: SaelensConfig) -> bool:
    """Whether it was trained on inputs scaled by one constant, which SAELens does not apply at run time."""
    return cfg.normalize_activations in (True, "expected_average_only_in")


def require_input_scale(cfg: SaelensConfig) -> float:
    """That constant. Raises InvalidSae when it is not known."""
    scale = cfg.scaling_factor if cfg.norm_scaling_factor is None else cfg.norm_scaling_factor
    if scale is None or scale <= 0:
        raise InvalidSae(
            f"{SAELENS_CONFIG}: normalize_activations expected_average_only_in needs a positive scaling_factor: without it "
            "activations would be wrong, so fold it into the weights or add it"
        )
    return scale


def runtime_normalisation(cfg: SaelensConfig) -> Normalisation:
    """What is left to do at run time."""
    if has_input_scale(cfg) or not isinstance(cfg.normalize_activations, str):
        return "none"
    return require_normalisation(cfg.normalize_activations)
