"""Binds a profile's SAE references to attached SAEs, and resolves steering requests to the engine's table rows.

A stated property of a reference must match, an omitted one matches anything. A feature index is valid for one
dictionary only, so nothing is guessed: any mismatch raises InvalidSteering.
"""

from collections import defaultdict
from collections.abc import Mapping

from millm.errors import InvalidRequest, InvalidSteering
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.schema import MAX_FEATURES, Profile, ProfileFeature, SaeReference, SteeringRequest, split_sae_id
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


def resolve_steering(saes: Mapping[str, AttachedSae], request: SteeringRequest) -> Steering | None:
    """The features as table rows; None where the request has none. Raises InvalidSteering."""
    by_sae: dict[str, list[Coefficients]] = defaultdict(list)
    for feature in request.features:
        sae = resolve_sae_name(saes, feature.sae, f"feature {feature.index}")
        by_sae[sae].append(feature_coefficients(saes[sae], feature, request.reference_norm))
    for sae, features in by_sae.items():
        _check_features(sae, features)
    if not by_sae:
        return None
    return Steering(
        by_sae=tuple(SaeSteering(sae, tuple(features), saes[sae].facts.id) for sae, features in sorted(by_sae.items())),
        positions=request.positions,
        skip=_resolve_skip(saes, by_sae, request.skip),
        skip_constrained=request.skip_constrained,
    )


def resolve_sae_name(saes: Mapping[str, AttachedSae], name: str | None, subject: str) -> str:
    """The attached SAE `name`, or the only one. Raises InvalidSteering, whose message begins with `subject`."""
    known = ", ".join(sorted(saes)) or "none"
    if name is not None:
        if name not in saes:
            raise InvalidSteering(
                f"{subject}: no SAE named {name[:128]!r} is attached; attached: {known}", param="steering"
            )
        return name
    if len(saes) != 1:
        raise InvalidSteering(f"{subject}: say which `sae`; attached: {known}", param="steering")
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


def check_index(index: int, sae: str, features: int, param: str, error: type[InvalidRequest] = InvalidSteering) -> None:
    """Raises `error` unless `index` is one of the SAE's `features`."""
    if index >= features:
        raise error(f"feature {index} is not in 0..{features - 1} of SAE {sae!r}", param=param)


def _check_features(sae: str, features: list[Coefficients]) -> None:
    seen: set[int] = set()
    for feature in features:
        if feature.index in seen:
            raise InvalidSteering(f"feature {feature.index} of SAE {sae!r} is given twice", param="steering.features")
        seen.add(feature.index)
    encoded = sum(reads_activation(feature) for feature in features)
    if encoded > MAX_ENCODED_FEATURES or len(features) > MAX_FEATURES:
        raise InvalidSteering(
            f"at most {MAX_FEATURES} features per SAE, {MAX_ENCODED_FEATURES} of them in a mode other than 'add'",
            param="steering.features",
        )


def _resolve_skip(
    saes: Mapping[str, AttachedSae], by_sae: dict[str, list[Coefficients]], requested: Skip | None
) -> Skip:
    """Activations at position 0 are meaningless (attention sink), so modes that read them always skip it."""
    reading = [sae for sae, features in by_sae.items() if any(reads_activation(feature) for feature in features)]
    if requested == "none" and reading:
        raise InvalidSteering(
            "skip 'none' is for mode 'add' only: other modes read the activation", param="steering.skip"
        )
    if requested is not None:
        return requested
    return "special" if any(saes[sae].facts.exclude_special_tokens for sae in reading) else "bos"


def bind_profile(saes: Mapping[str, AttachedSae], profile: Profile) -> SteeringRequest:
    """The profile's steering with the names of attached SAEs. Raises InvalidSteering with the difference."""
    if not profile.saes:
        return profile.steering
    bound = _bind_references(saes, profile)
    norms = {sae: reference.reference_norm for sae, reference in zip(bound.values(), profile.saes, strict=True)}
    only = next(iter(bound)) if len(bound) == 1 else None
    features = tuple(_bind_feature(one, bound[only if one.sae is None else one.sae], norms) for one in profile.features)
    distinct = set(norms.values())
    shared = profile.reference_norm or (distinct.pop() if len(distinct) == 1 else None)
    return profile.steering.model_copy(update={"features": features, "reference_norm": shared})


def watched_features(saes: Mapping[str, AttachedSae], profile: Profile) -> dict[str, tuple[int, ...]]:
    """Attached SAE → indices of the features in the profile's `watch`. Raises InvalidSteering."""
    bound = _bind_references(saes, profile)
    names = list(bound.values()) or list(saes)
    only = names[0] if len(names) == 1 else None
    watched: dict[str, tuple[int, ...]] = {}
    for feature in profile.watch:
        sae = only if feature.sae is None else bound.get(feature.sae, feature.sae)
        if sae is not None and sae in saes:
            watched[sae] = (*watched.get(sae, ()), feature.index)
    return watched


def _bind_references(saes: Mapping[str, AttachedSae], profile: Profile) -> dict[str | None, str]:
    """The profile's name of an SAE → the attached SAE."""
    return {reference.alias: _find_attached(saes, reference, profile) for reference in profile.saes}


def incompatibility(model: LoadedModel | None, saes: Mapping[str, AttachedSae], profile: Profile) -> str | None:
    """Why the profile cannot be applied now, as a sentence; None where it can."""
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
            f"profile {profile.name!r} is made for {profile.model.repo_id}, not for {loaded.name};"
            " if both are the same model, remove `model` from the profile",
            param="profile",
        )


def reference_to_attached(attached: AttachedSae) -> SaeReference:
    """The reference to an attached SAE in a new profile."""
    facts = attached.facts
    repo_id, path, revision = split_sae_id(facts.sae)
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
    matching = [name for name, difference in differences.items() if difference is None]
    if reference.alias in matching:
        return str(reference.alias)
    if len(matching) == 1:
        return matching[0]
    name = (reference.path and f"{reference.repo_id}/{reference.path}") or reference.alias or "any"
    if matching:
        raise InvalidSteering(
            f"profile {profile.name!r}: its SAE {name!r} may be any of {', '.join(matching)};"
            " state its `hook_point` or `sha256` in `saes`",
            param="profile",
        )
    why = "; ".join(f"{name} {difference}" for name, difference in differences.items()) or "no SAE is"
    raise InvalidSteering(f"profile {profile.name!r}: its SAE {name!r} is not attached: {why}", param="profile")


def _difference(reference: SaeReference, attached: AttachedSae) -> str | None:
    """The first property that does not match; None where the reference fits."""
    facts = attached.facts
    stated = (
        ("layer", reference.layer, facts.layer),
        ("hook point", reference.hook_point, facts.hook_point),
        ("width", reference.width, facts.features),
    )
    for name, expected, actual in stated:
        if expected is not None and expected != actual:
            return f"has {name} {actual}, not {expected}"
    if reference.sha256 is not None:
        return None if reference.sha256 == facts.sha256 else "has other weights"
    return None if _is_from_repository(reference, facts.sae) else "is another SAE"


def _is_from_repository(reference: SaeReference, name: str) -> bool:
    """Whether the attached SAE `name` lies in the referenced repository and folder."""
    if reference.repo_id is None:
        return reference.name in (None, name)
    repo_id, path, revision = split_sae_id(name)
    if repo_id is None:
        return reference.repo_id == name
    if reference.repo_id != repo_id or (reference.revision and revision and reference.revision != revision):
        return False
    return reference.path is None or path is None or f"{reference.path}/".startswith(f"{path}/")


def _bind_feature(feature: ProfileFeature, sae: str, norms: Mapping[str, float | None]) -> ProfileFeature:
    """Convert unit `norm` to `raw` where the SAEs' reference norms differ: a request has one norm only."""
    norm = norms[sae]
    if feature.unit == "norm" and norm and len(set(norms.values())) > 1:
        return feature.model_copy(update={"sae": sae, "unit": "raw", "strength": feature.strength * norm})
    return feature.model_copy(update={"sae": sae})
