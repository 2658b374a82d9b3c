"""Checks shared by the exporters: what a format cannot express is an error, so that nothing is lost silently."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from millm.errors import InvalidProfile, InvalidSteering
from millm.profiles.schema import Profile, ProfileFeature, SaeReference
from millm.sae.steering import Mode, Skip, coefficients

SaeName = str | None


@dataclass(frozen=True)
class SaeMeasurements:
    """Fallbacks for converting units, by the profile's name of an SAE."""

    norms: Mapping[SaeName, float] = field(default_factory=dict)
    max_acts: Mapping[SaeName, Mapping[int, float]] = field(default_factory=dict)


def raw_features(
    profile: Profile,
    format: str,
    measurements: SaeMeasurements,
    *,
    modes: tuple[Mode, ...] = ("add",),
    max_strength: float = math.inf,
) -> tuple[ProfileFeature, ...]:
    """The features with their strengths in residual units. Raises InvalidProfile."""
    features = tuple(_raw_feature(profile, one, measurements, format, modes) for one in profile.features)
    for one in features:
        if abs(one.strength) > max_strength:
            raise export_error(
                profile, f"feature {one.index} has strength {one.strength:g}, and {format} takes ±{max_strength:g}"
            )
    return features


def check_tokens(profile: Profile, format: str, skip: Skip | None) -> None:
    """Raises InvalidProfile unless the profile steers the tokens that the format implies."""
    if profile.positions != "all":
        raise export_error(profile, f"`positions` is {profile.positions!r}, and {format} steers all positions")
    if profile.skip_constrained:
        raise export_error(profile, f"`skip_constrained` is set, and {format} has no such thing")
    if profile.skip != skip:
        actual, needed = repr(profile.skip or "left out"), skip or "default"
        raise export_error(profile, f"`skip` is {actual}, which {format} cannot say; export it with `skip={needed}`")


def only_sae(profile: Profile, format: str) -> SaeReference:
    if len(profile.saes) != 1:
        raise export_error(profile, f"{format} takes exactly one SAE in `saes`, and here are {len(profile.saes)}")
    return profile.saes[0]


def sae_of_feature(profile: Profile, feature: ProfileFeature, format: str) -> SaeReference:
    """Raises InvalidProfile where `saes` does not have the feature's SAE."""
    if feature.sae is None:
        return only_sae(profile, format)
    sae = next((sae for sae in profile.saes if sae.alias == feature.sae), None)
    if sae is None:
        raise export_error(profile, f"{format} needs the SAE of feature {feature.index} in `saes`")
    return sae


def export_error(profile: Profile, reason: str) -> InvalidProfile:
    return InvalidProfile(f"profile {profile.name!r} cannot be exported so: {reason}", param="format")


def _raw_feature(
    profile: Profile, feature: ProfileFeature, measurements: SaeMeasurements, format: str, modes: tuple[Mode, ...]
) -> ProfileFeature:
    if feature.mode not in modes:
        raise export_error(
            profile, f"feature {feature.index} has mode {feature.mode!r}, and {format} takes {', '.join(modes)}"
        )
    if feature.unit == "raw":
        return feature
    sae = next((sae for sae in profile.saes if feature.sae in (None, sae.alias)), None)
    name = sae.alias if sae else feature.sae
    norm = profile.reference_norm or (sae.reference_norm if sae else None) or measurements.norms.get(name)
    max_act = measurements.max_acts.get(name, {}).get(feature.index)
    try:
        strength = coefficients(feature.setting(), reference_norm=norm, max_act=max_act).alpha
    except InvalidSteering as error:
        raise export_error(profile, error.message) from error
    return feature.model_copy(update={"strength": strength, "unit": "raw", "max_act": None})
