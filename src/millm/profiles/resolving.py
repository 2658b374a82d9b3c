"""A steering as a person writes it, made into the rows that the engine's tables take.

Never silently unsteered: whatever cannot be applied exactly is refused by name.
"""

from collections import defaultdict
from collections.abc import Mapping

from millm.errors import InvalidSteering
from millm.loaded import AttachedSae
from millm.profiles.contract import ProfileFeature, SteeringRequest
from millm.sae.steering import (
    MAX_ENCODED_FEATURES,
    Coefficients,
    SaeSteering,
    Skip,
    Steering,
    coefficients,
    reads_activation,
)

MAX_ADDED_FEATURES = 4096


def resolve_steering(saes: Mapping[str, AttachedSae], request: SteeringRequest) -> Steering | None:
    """The knobs as table rows; None when there are none, which is the base model."""
    by_sae: dict[str, list[Coefficients]] = defaultdict(list)
    for feature in request.features:
        sae = resolve_sae_name(saes, feature.sae, f"feature {feature.index}")
        by_sae[sae].append(feature_coefficients(saes[sae], feature, request.reference_norm))
    for sae, features in by_sae.items():
        _check_features(sae, features)
    if not by_sae:
        return None
    taps = tuple(SaeSteering(sae, tuple(features), saes[sae].facts.id) for sae, features in sorted(by_sae.items()))
    return Steering(
        by_sae=taps,
        positions=request.positions,
        skip=_resolve_skip(saes, by_sae, request.skip),
        skip_constrained=request.skip_constrained,
    )


def resolve_sae_name(saes: Mapping[str, AttachedSae], name: str | None, subject: str) -> str:
    known = ", ".join(sorted(saes)) or "none"
    if name is not None:
        if name not in saes:
            raise InvalidSteering(
                f"{subject}: no SAE named {name[:128]!r} is attached; attached: {known}", param="steering"
            )
        return name
    if len(saes) != 1:
        raise InvalidSteering(f"{subject}: say which `sae` is meant; attached: {known}", param="steering")
    return next(iter(saes))


def feature_coefficients(sae: AttachedSae, feature: ProfileFeature, reference_norm: float | None) -> Coefficients:
    check_index(feature.index, sae.facts.sae, sae.facts.features, "steering.features")
    if not sae.facts.steerable:
        raise InvalidSteering(
            f"SAE {sae.facts.sae!r} can be watched but not steered: its output is not this hook point",
            param="steering",
        )
    return coefficients(
        feature.setting(),
        reference_norm=reference_norm or sae.facts.residual_norm,
        max_act=sae.max_acts.get(feature.index),
    )


def check_index(index: int, sae: str, features: int, param: str) -> None:
    if index >= features:
        raise InvalidSteering(f"feature {index} is not in 0..{features - 1} of SAE {sae!r}", param=param)


def _check_features(sae: str, features: list[Coefficients]) -> None:
    seen: set[int] = set()
    for feature in features:
        if feature.index in seen:
            raise InvalidSteering(f"feature {feature.index} of SAE {sae!r} is given twice", param="steering.features")
        seen.add(feature.index)
    encoded = sum(reads_activation(feature) for feature in features)
    if encoded > MAX_ENCODED_FEATURES or len(features) > MAX_ADDED_FEATURES:
        raise InvalidSteering(
            f"at most {MAX_ADDED_FEATURES} features per SAE, {MAX_ENCODED_FEATURES} of them in a mode other than 'add'",
            param="steering.features",
        )


def _resolve_skip(
    saes: Mapping[str, AttachedSae], by_sae: dict[str, list[Coefficients]], requested: Skip | None
) -> Skip:
    """Activations at position 0 are no measurement (attention sink), so modes that read them always skip it."""
    reading = [sae for sae, features in by_sae.items() if any(reads_activation(feature) for feature in features)]
    if requested == "none" and reading:
        raise InvalidSteering(
            "skip 'none' is for mode 'add' only: other modes read the activation", param="steering.skip"
        )
    if requested is not None:
        return requested
    return "special" if any(saes[sae].facts.exclude_special_tokens for sae in reading) else "bos"
