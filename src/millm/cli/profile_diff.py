"""What two steerings do differently: by feature, and what holds for all of them."""

from collections.abc import Mapping
from typing import NamedTuple

from millm.profiles.contract import Profile, ProfileFeature, SteeringRequest


class Difference(NamedTuple):
    what: str
    before: str | None
    """None: it has none."""
    after: str | None


def differences(before: SteeringRequest, after: SteeringRequest) -> list[Difference]:
    """In the order of SAEs and features, then the rest."""
    left, right = _knobs(before), _knobs(after)
    if not (_names(left) and _names(right)) and len(_names(left) | _names(right)) <= 1:
        left, right = _unnamed(left), _unnamed(right)  # one of them leaves open which SAE is meant; the other has one
    found = [
        Difference(
            " ".join(filter(None, ("feature", str(index), sae))), left.get((sae, index)), right.get((sae, index))
        )
        for sae, index in sorted({*left, *right})
    ]
    found += [
        Difference(name.replace("_", " "), _text(getattr(before, name)), _text(getattr(after, name)))
        for name in ("positions", "skip", "skip_constrained", "reference_norm")
    ]
    return [one for one in found if one.before != one.after]


def knob_text(feature: ProfileFeature) -> str:
    """`+80 raw`, or what else is done with it."""
    if feature.mode == "ablate":
        return "ablate"
    mode = "" if feature.mode == "add" else f"{feature.mode} "
    return f"{mode}{feature.strength:+g} {feature.unit}"


def _knobs(steering: SteeringRequest) -> dict[tuple[str, int], str]:
    only = _only_sae(steering)
    return {(feature.sae or only, feature.index): knob_text(feature) for feature in steering.features}


def _names(knobs: Mapping[tuple[str, int], str]) -> set[str]:
    return {sae for sae, _ in knobs if sae}


def _unnamed(knobs: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    return {("", index): text for (_, index), text in knobs.items()}


def _only_sae(steering: SteeringRequest) -> str:
    """What a feature means that names no SAE, where the profile says."""
    saes = steering.saes if isinstance(steering, Profile) else ()
    return (saes[0].called or "") if len(saes) == 1 else ""


def _text(value: object) -> str | None:
    return None if value is None else str(value)
