"""Steering as plain values, reduced to the four coefficients per feature in a hook's table. Imports no torch.

Every mode is one formula per feature (derivation: docs/steering.md, after Neuronpedia, Anthropic and AxBench):

    c = clip(α + β·a, lo, hi)        h ← h + Σ c·d

`a` is the feature's activation and `d` its decoder row scaled to unit length, so that `a`, `c` and a `raw` strength
are in units of the residual stream. (SAELens calls that `fold_W_dec_norm`.)
"""

import hashlib
import math
from collections.abc import Set
from typing import Literal

import msgspec

from millm.errors import InvalidSteering


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """Which activations of one SAE to report, at which tokens."""

    sae: str
    features: tuple[int, ...] = ()
    top_k: int = 0
    """Also the k most active features of the full dictionary."""
    tokens: Literal["generated", "prompt", "all"] = "generated"
    when: Literal["before", "after", "both"] = "before"
    """Before or after this hook's steering."""
    sample_every: int | None = None
    """Report `top_k` at every n-th position; None: the SAE's own `sample_every`."""
    attachment: str = ""
    """`SaeFacts.id` of the attachment; another one with the same SAE name does not match."""
    optional: bool = False
    """True for the server's own watch list: if the SAE is detached, the sequence continues without it."""


Mode = Literal["add", "clamp", "min_clamp", "scale", "ablate"]
Unit = Literal["raw", "norm", "max_act"]
Positions = Literal["all", "prompt", "generated"]
Skip = Literal["bos", "special", "none"]
MAX_STRENGTH = 1e6
"""Largest strength in residual units, far beyond any effect and within float32."""
MAX_ENCODED_FEATURES = 64
"""Features per SAE and request whose mode reads the activation (all but `add`, which is not limited)."""


class FeatureSetting(msgspec.Struct, frozen=True, kw_only=True):
    """One feature and its strength, as written in a request or profile."""

    index: int
    """Feature index in the SAE's dictionary."""
    strength: float = 0.0
    """`add`: how much to add; `clamp`, `min_clamp`: the activation to hold; `scale`: the factor; `ablate`: unused."""
    unit: Unit = "raw"
    """`raw`: residual units; `norm`: × the median residual norm at the hook; `max_act`: × the feature's maximum."""
    mode: Mode = "add"
    sae: str | None = None
    """Name of an attached SAE; needed if several are attached."""
    max_act: float | None = None
    """The feature's maximum activation, for `unit: max_act`; default: the one in the SAE's labels."""


class Coefficients(msgspec.Struct, frozen=True, array_like=True):
    """One feature in a row of a hook's table: c = clip(alpha + beta·a, lo, hi)."""

    index: int
    alpha: float
    beta: float
    lo: float = -math.inf
    hi: float = math.inf


class SaeSteering(msgspec.Struct, frozen=True, array_like=True):
    """The features of one SAE that steer a request."""

    sae: str
    features: tuple[Coefficients, ...]
    attachment: str = ""
    """`SaeFacts.id` of the attachment it was resolved for; another one with the same SAE name does not match."""


class Steering(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved steering, complete for the engine."""

    by_sae: tuple[SaeSteering, ...]
    positions: Positions = "all"
    skip: Skip = "bos"
    skip_constrained: bool = False
    """Do not steer tokens whose successor is constrained by a grammar."""

    def applies(self, position: int, token: int, prompt_length: int, special_ids: Set[int]) -> bool:
        """Whether the token at `position` of prompt + completion is steered."""
        if self.skip != "none" and position == 0:
            return False
        if self.skip == "special" and token in special_ids:
            return False
        if self.positions == "prompt":
            return position < prompt_length
        if self.positions == "generated":
            return position >= prompt_length - 1
        return True

    @property
    def fingerprint(self) -> str:
        """Equal for equal effects: the key of receipts and of reuse of cached keys and values."""
        canonical = [
            [sorted((sae.sae, sorted(msgspec.to_builtins(f) for f in sae.features)) for sae in self.by_sae)],
            self.positions,
            self.skip,
            self.skip_constrained,
        ]
        return hashlib.sha256(repr(canonical).encode()).hexdigest()[:16]


def coefficients(
    setting: FeatureSetting, *, reference_norm: float | None = None, max_act: float | None = None
) -> Coefficients:
    """The coefficients of one feature. Raises InvalidSteering without the reference that the unit needs."""
    value = _in_residual_units(setting, reference_norm, max_act)
    if not abs(value) <= MAX_STRENGTH:  # also rejects NaN
        raise InvalidSteering(f"feature {setting.index}: strength must be a number within ±{MAX_STRENGTH:,.0f}")
    match setting.mode:
        case "add":
            return Coefficients(setting.index, alpha=value, beta=0.0)
        case "clamp":
            return Coefficients(setting.index, alpha=value, beta=-1.0)
        case "min_clamp":
            return Coefficients(setting.index, alpha=value, beta=-1.0, lo=0.0)
        case "scale":
            return Coefficients(setting.index, alpha=0.0, beta=value - 1.0)
        case "ablate":
            return Coefficients(setting.index, alpha=0.0, beta=-1.0)


def _in_residual_units(setting: FeatureSetting, reference_norm: float | None, max_act: float | None) -> float:
    if setting.mode in ("scale", "ablate") and setting.unit != "raw":
        raise InvalidSteering(
            f"feature {setting.index}: mode {setting.mode!r} has no unit, leave `unit` out (it was {setting.unit!r})"
        )
    if setting.unit == "norm":
        return setting.strength * _require_reference(setting, reference_norm, "the residual norm at this hook")
    if setting.unit == "max_act":
        return setting.strength * _require_reference(
            setting, setting.max_act or max_act, "the feature's maximum activation"
        )
    return setting.strength


def _require_reference(setting: FeatureSetting, reference: float | None, description: str) -> float:
    if reference is None:
        raise InvalidSteering(
            f"feature {setting.index}: unit {setting.unit!r} needs {description}, which is not known; use unit 'raw'"
        )
    return reference


def reads_activation(feature: Coefficients) -> bool:
    """True when the coefficient depends on the activation, so that the encoder has to run."""
    return feature.beta != 0.0
