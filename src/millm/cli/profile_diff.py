"""What two steerings do differently: by feature, and what holds for all of them."""

from collections.abc import Mapping
from typing import NamedTuple

from millm.profiles.schema import Profile, ProfileFeature, SteeringRequest


class SteeringDifference(NamedTuple):
    what: str
    before: str | None
    """None: it has none."""
    after: str | None


def diff_steerings(before: SteeringRequest, after: SteeringRequest) -> list[SteeringDifference]:
    """In the order of SAEs and features, then the rest."""
    left, right = _strength_texts(before), _strength_texts(after)
    if not (_sae_names(left) and _sae_names(right)) and len(_sae_names(left) | _sae_names(right)) <= 1:
        left, right = (
            _without_sae_names(left),
            _without_sae_names(right),
        )  # one of them leaves open which SAE is meant; the other has one
    found = [
        SteeringDifference(
            " ".join(filter(None, ("feature", str(index), sae))), left.get((sae, index)), right.get((sae, index))
        )
        for sae, index in sorted({*left, *right})
    ]
    found += [
        SteeringDifference(
            name.replace("_", " "), _text_or_none(getattr(before, name)), _text_or_none(getattr(after, name))
        )
        for name in ("positions", "skip", "skip_constrained", "reference_norm")
    ]
    return [one for one in found if one.before != one.after]


def feature_strength_text(feature: ProfileFeature) -> str:
    """`+80 raw`, or what else is done with it."""
    if feature.mode == "ablate":
        return "ablate"
    mode = "" if feature.mode == "add" else f"{feature.mode} "
    return f"{mode}{feature.strength:+g} {feature.unit}"


def _strength_texts(steering: SteeringRequest) -> dict[tuple[str, int], str]:
    only = _only_sae(steering)
    return {(feature.sae or only, feature.index): feature_strength_text(feature) for feature in steering.features}


def _sae_names(strengths: Mapping[tuple[str, int], str]) -> set[str]:
    return {sae for sae, _ in strengths if sae}


def _without_sae_names(strengths: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    return {("", index): text for (_, index), text in strengths.items()}


def _only_sae(steering: SteeringRequest) -> str:
    """What a feature means that names no SAE, where the profile says."""
    saes = steering.saes if isinstance(steering, Profile) else ()
    return (saes[0].alias or "") if len(saes) == 1 else ""


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
