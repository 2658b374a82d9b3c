"""The configuration of an SAE, the same for every file format; limits of the steering hook; the calibration text.

Imports no torch, for the API process.
"""

import re
from importlib.resources import files
from typing import Annotated, Literal, get_args

import msgspec

from millm.errors import InvalidSae

MAX_TABLE_ROWS = 64
"""Distinct (steering, watch list) pairs in use at once."""
MAX_WATCHED_FEATURES = 192
"""Of one SAE and sequence: 128 of a request, and 64 that the server watches."""
FEATURE_BANK_SIZE = 4096
"""Features whose rows are resident at once, over all live rows; 2 · 4096 · d_model · 4 bytes."""
Architecture = Literal[
    "standard",
    "jumprelu",
    "topk",
    "gated",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
]
Width = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Normalisation = Literal["none", "layer_norm", "constant_norm_rescale"]
_ARCHITECTURES: dict[str, Architecture] = {name: name for name in get_args(Architecture)}
_NORMALISATIONS: dict[str, Normalisation] = {name: name for name in get_args(Normalisation)}
_LAYER = re.compile(r"(?:^|\.)(?:blocks|layers|h)\.(\d+)(?:\.|$)")


class SaeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Raises InvalidSae for contradictory fields."""

    architecture: Architecture
    d_in: Width
    d_sae: Width
    """Number of features."""
    d_out: Width
    """Width of the decoder's output: `d_in`, except for transcoders."""
    normalize_activations: Normalisation = "none"
    """Applied per token at run time; `expected_average_only_in` is folded into the weights when a file is read."""
    apply_b_dec_to_input: bool = False
    center_inputs: bool = False
    """Trained with TransformerLens' `center_writing_weights`: on a raw LayerNorm model, subtract the mean."""
    k: int | None = None
    """topk only: the number of active features per token."""
    rescale_acts_by_decoder_norm: bool = False
    """topk only: activations are ranked and returned in units of the residual stream."""
    model_name: str | None = None
    hook_name: str | None = None
    """TransformerLens' name, e.g. `blocks.20.hook_resid_post`."""
    hf_hook_name: str | None = None
    """transformers' name, e.g. `model.layers.20.output`; if both are known, this is the exact one."""
    hook_name_out: str | None = None
    """Transcoders: the hook point of the decoder's output."""
    exclude_special_tokens: bool = False
    """Trained without special tokens: activations on them are meaningless."""
    source_format: str
    dtype: str
    """Of the stored encoder; the arithmetic is always float32."""

    def __post_init__(self) -> None:
        if min(self.d_in, self.d_sae, self.d_out) < 1:
            raise InvalidSae(f"d_in {self.d_in}, d_sae {self.d_sae} and d_out {self.d_out} must all be at least 1")
        if self.is_transcoder and self.apply_b_dec_to_input:
            raise InvalidSae("apply_b_dec_to_input cannot be true for a transcoder: its b_dec belongs to the output")
        if not self.is_transcoder and self.d_out != self.d_in:
            raise InvalidSae(f"d_out {self.d_out} must equal d_in {self.d_in} for architecture {self.architecture!r}")
        if self.architecture != "topk":
            if self.k is not None or self.rescale_acts_by_decoder_norm:
                raise InvalidSae(f"k and rescale_acts_by_decoder_norm belong to topk, not to {self.architecture!r}")
        elif self.k is None:
            raise InvalidSae("architecture 'topk' needs k, the number of active features, in its configuration")
        elif not 1 <= self.k <= self.d_sae:
            raise InvalidSae(f"k is {self.k}; it must be 1 to d_sae {self.d_sae}")

    @property
    def is_transcoder(self) -> bool:
        return self.architecture.endswith("transcoder")

    @property
    def has_threshold(self) -> bool:
        return self.architecture.startswith("jumprelu")

    @property
    def has_skip(self) -> bool:
        return "skip" in self.architecture

    @property
    def can_read_sparsely(self) -> bool:
        """Whether single features can be read without computing all of them."""
        return self.architecture != "topk"

    @property
    def steerable(self) -> bool:
        """False for transcoders: their output belongs at another hook than their input."""
        return not self.is_transcoder

    @property
    def layer(self) -> int | None:
        """Parsed from the hook names; None if unknown."""
        return layer_of(self.hf_hook_name, self.hook_name)


def layer_of(*hook_names: str | None) -> int | None:
    """From the first name that contains it: `blocks.20.hook_resid_post`, `model.layers.20.output`."""
    for name in hook_names:
        if match := _LAYER.search(name or ""):
            return int(match[1])
    return None


def require_architecture(name: str) -> Architecture:
    """`name`, typed. Raises InvalidSae for an architecture that is not supported exactly."""
    if name not in _ARCHITECTURES:
        raise InvalidSae(f"architecture {name!r} is not supported; supported are {', '.join(_ARCHITECTURES)}")
    return _ARCHITECTURES[name]


def require_normalisation(name: str) -> Normalisation:
    """`name`, typed. Raises InvalidSae for a normalisation that is not supported exactly."""
    if name not in _NORMALISATIONS:
        raise InvalidSae(
            f"normalize_activations {name!r} is not supported; supported are {', '.join(_NORMALISATIONS)} and, "
            "with its scaling_factor, expected_average_only_in"
        )
    return _NORMALISATIONS[name]


def calibration_text() -> list[str]:
    """The bundled text that every SAE is calibrated on: varied, neutral prose, about 250 tokens in all.

    Each paragraph is a text with its own BOS.
    """
    return files("millm.sae").joinpath("calibration.txt").read_text(encoding="utf-8").strip().split("\n\n")
