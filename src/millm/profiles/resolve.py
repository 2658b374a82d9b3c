"""The SAEs that a profile was made with, and those that are attached: which is which, and why one is not there.

What a profile states of an SAE has to be so; what it leaves out is not asked. A feature's index means something for one
dictionary only, so nothing is guessed.

A steering as a person writes it, made into the rows that the engine's tables take.

Never silently unsteered: whatever cannot be applied exactly is refused by name.
"""

from collections import defaultdict
from collections.abc import Mapping

from millm.errors import InvalidSteering
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.schema import Profile, ProfileFeature, SaeReference, SteeringRequest
from millm.sae.base_models import is_same_model
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


def bind_profile(saes: Mapping[str, AttachedSae], profile: Profile) -> SteeringRequest:
    """The profile's steering with the names of attached SAEs. Raises InvalidSteering saying what differs."""
    if not profile.saes:
        return profile.steering
    meant = {reference.alias: _find_attached(saes, reference, profile) for reference in profile.saes}
    norms = {sae: reference.reference_norm for sae, reference in zip(meant.values(), profile.saes, strict=True)}
    only = next(iter(meant)) if len(meant) == 1 else None
    features = tuple(_bind_feature(one, meant[only if one.sae is None else one.sae], norms) for one in profile.features)
    alike = set(norms.values())
    shared = profile.reference_norm or (alike.pop() if len(alike) == 1 else None)
    return profile.steering.model_copy(update={"features": features, "reference_norm": shared})


def watched_features(saes: Mapping[str, AttachedSae], profile: Profile) -> dict[str, tuple[int, ...]]:
    """Attached SAE → the features that the profile would have watched. Raises InvalidSteering."""
    meant = {reference.alias: _find_attached(saes, reference, profile) for reference in profile.saes}
    known = list(meant.values()) or list(saes)
    only = known[0] if len(known) == 1 else None
    found: dict[str, tuple[int, ...]] = {}
    for feature in profile.watch:
        sae = only if feature.sae is None else meant.get(feature.sae, feature.sae)
        if sae is not None and sae in saes:
            found[sae] = (*found.get(sae, ()), feature.index)
    return found


def incompatibility(model: LoadedModel | None, saes: Mapping[str, AttachedSae], profile: Profile) -> str | None:
    """Why the profile cannot be applied now, in a sentence; None: it can."""
    if model is None:
        return "no model is loaded"
    try:
        check_model(profile, model)
        resolve_steering(saes, bind_profile(saes, profile))
    except InvalidSteering as error:
        return error.message
    return None


def check_model(profile: Profile, loaded: LoadedModel) -> None:
    """Raises InvalidSteering for a profile of another model."""
    if profile.model and not is_same_model(profile.model.repo_id, loaded.name):
        raise InvalidSteering(
            f"profile {profile.name!r} was made for {profile.model.repo_id}, not for {loaded.name};"
            " where both are one model, take `model` out of the profile",
            param="profile",
        )


def reference_to_attached(attached: AttachedSae) -> SaeReference:
    """How a profile that is made now names it."""
    facts = attached.facts
    repo_id, path, revision = _split_sae_name(facts.sae)
    return SaeReference(
        name=facts.sae,
        repo_id=repo_id,
        path=path,
        revision=revision,
        sha256=facts.sha256 if len(facts.sha256) == 64 else None,
        layer=facts.layer,
        hook_point=facts.hook_point,
        width=facts.features,
        reference_norm=facts.residual_norm,
    )


def _find_attached(saes: Mapping[str, AttachedSae], reference: SaeReference, profile: Profile) -> str:
    differences = {name: _difference(reference, attached) for name, attached in saes.items()}
    fitting = [name for name, difference in differences.items() if difference is None]
    if reference.alias in fitting:
        return str(reference.alias)
    if len(fitting) == 1:
        return fitting[0]
    wanted = (reference.path and f"{reference.repo_id}/{reference.path}") or reference.alias or "any"
    if fitting:
        raise InvalidSteering(
            f"profile {profile.name!r}: its SAE {wanted!r} may be any of {', '.join(fitting)};"
            " say in its `saes` which is meant, by `hook_point` or `sha256`",
            param="profile",
        )
    why = "; ".join(f"{name} {difference}" for name, difference in differences.items()) or "no SAE is"
    raise InvalidSteering(f"profile {profile.name!r}: its SAE {wanted!r} is not attached: {why}", param="profile")


def _difference(reference: SaeReference, attached: AttachedSae) -> str | None:
    """What is not as the profile says; None: it is the one."""
    facts = attached.facts
    stated = (
        ("layer", reference.layer, facts.layer),
        ("hook point", reference.hook_point, facts.hook_point),
        ("width", reference.width, facts.features),
    )
    for name, asked, found in stated:
        if asked is not None and asked != found:
            return f"has {name} {found}, not {asked}"
    if reference.sha256 is not None:
        return None if reference.sha256 == facts.sha256 else "has other weights"
    return None if _is_from_repository(reference, facts.sae) else "is another SAE"


def _is_from_repository(reference: SaeReference, name: str) -> bool:
    """Does the attached SAE's name say that it is the repository and folder that are meant?"""
    if reference.repo_id is None:
        return reference.name in (None, name)
    repo_id, path, revision = _split_sae_name(name)
    if repo_id is None:
        return reference.repo_id == name
    if reference.repo_id != repo_id or (reference.revision and revision and reference.revision != revision):
        return False
    return reference.path is None or path is None or f"{reference.path}/".startswith(f"{path}/")


def _split_sae_name(name: str) -> tuple[str | None, str | None, str | None]:
    """(repository, folder inside it, revision) of `owner/name/folder@revision`; none of a local name."""
    path, _, revision = name.partition("@")
    owner, *rest = path.split("/")
    if not rest:
        return None, None, None
    return f"{owner}/{rest[0]}", "/".join(rest[1:]) or None, revision or None


def _bind_feature(feature: ProfileFeature, sae: str, norms: Mapping[str, float | None]) -> ProfileFeature:
    """Of several SAEs that were measured differently, each strength keeps the norm that it was written against."""
    norm = norms[sae]
    if feature.unit == "norm" and norm and len(set(norms.values())) > 1:
        return feature.model_copy(update={"sae": sae, "unit": "raw", "strength": feature.strength * norm})
    return feature.model_copy(update={"sae": sae})
