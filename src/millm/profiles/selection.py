"""Which steering applies to a request: `steering` > `profile` > `model:profile` > what is active on the server.

Resolved once, at the door, into values that the engine only has to look at. Never silently unsteered: whatever
cannot be applied exactly is refused by name.
"""

from collections import defaultdict
from dataclasses import dataclass

from millm.engine.messages import SaeFacts, Watch
from millm.errors import InvalidProfile, InvalidSteering, ModelNotFound, ModelNotLoaded, SaeDetached
from millm.profiles.contract import ActivationsRequest, Profile, ProfileFeature, SteeringRequest
from millm.sae.model_names import is_same_model
from millm.sae.steering import (
    MAX_ENCODED_FEATURES,
    Coefficients,
    Skip,
    Steering,
    TapSteering,
    coefficients,
    reads_activation,
)
from millm.state import Active, AttachedSae, LoadedModel, State

MAX_ADDED_FEATURES = 4096


@dataclass(frozen=True)
class Selection:
    """What answers a request."""

    model: LoadedModel
    profile: str | None = None
    steering: Steering | None = None
    follows_active: bool = False
    """Nothing was asked for: the steering is what is active, now and while the answer is made."""
    degraded: str | None = None
    """Why what is active is not applied."""


@dataclass(frozen=True)
class ModelCard:
    """One entry of a client's model menu."""

    id: str
    name: str
    created: int
    profile: str | None
    description: str


def select(
    state: State, *, model: str, profile: str | None, steering: SteeringRequest | None, steering_given: bool
) -> Selection:
    """Raises ModelNotFound, ModelNotLoaded, ProfileNotFound, InvalidSteering or SaeDetached."""
    if state.is_starting:
        raise ModelNotLoaded("the server is starting, and not all is there yet; try again in a moment")
    loaded, alias = _model(state, model)
    if steering_given:
        return Selection(loaded, None, _resolved(state, steering) if steering else None)
    name = profile if profile is not None else alias
    if name is None:
        return _following(state, loaded)
    return Selection(loaded, name, _of_profile(state, loaded, name)[1])


def active(state: State, *, steering: SteeringRequest | None = None, profile: str | None = None) -> Active | None:
    """What would be active on the server; None is the base model.

    Raises ModelNotLoaded, ProfileNotFound, InvalidProfile, InvalidSteering or SaeDetached.
    """
    loaded = _loaded(state)
    if profile is not None:
        found, resolved = _of_profile(state, loaded, profile)
        if resolved is None:
            raise InvalidProfile(f"profile {profile!r} steers nothing", param="profile")
        return Active(profile, found, resolved)
    resolved = _resolved(state, steering) if steering else None
    return Active(None, steering, resolved) if steering and resolved else None


def model_cards(state: State) -> list[ModelCard]:
    """The model, then one card per profile that can be applied to what is attached."""
    model = state.model
    if model is None:
        return []
    cards = [ModelCard(model.name, model.name, model.created, None, "")]
    for profile in state.profiles.values():
        if _fits(state.saes, profile, model):
            card_id = f"{model.name}:{profile.name}"
            cards.append(
                ModelCard(
                    card_id,
                    f"{model.name} · {profile.name}",
                    model.created,
                    profile.name,
                    profile.description,
                )
            )
    return cards


def library_cards(state: State) -> list[ModelCard]:
    """What a request may name besides, to have it loaded. Looks at the disk."""
    loaded = state.model.name if state.model else None
    return [
        ModelCard(entry.id, entry.id, int(entry.last_used or 0), None, "loaded when it is asked")
        for entry in state.hub.library.models()
        if entry.state == "whole" and entry.id != loaded
    ]


def watches(state: State, request: ActivationsRequest) -> tuple[Watch, ...]:
    """What to report, for the engine. Raises InvalidSteering or SaeDetached."""
    _check_attached(state)
    sae = _sae(state.saes, request.sae, "activations")
    if not request.features and not request.top_k:
        raise InvalidSteering("activations: name `features`, or a `top_k` of at least 1", param="activations")
    facts = state.saes[sae].facts
    for index in request.features:
        _check_index(index, sae, facts.features, "activations.features")
    if request.top_k > facts.features:
        raise InvalidSteering(f"top_k must be at most {facts.features}", param="activations.top_k")
    return (
        Watch(
            sae=sae,
            features=request.features,
            top_k=request.top_k,
            tokens=request.tokens,
            when=request.when,
            sample_every=_sample_every(request, facts),
            attachment=facts.id,
        ),
    )


def _sample_every(request: ActivationsRequest, facts: SaeFacts) -> int | None:
    if request.top_k:
        return request.sample_every or facts.sample_every
    if request.sample_every:
        raise InvalidSteering(
            "sample_every says how often `top_k` is read; ask for a `top_k`, or leave it out: `features` are"
            " read at every token",
            param="activations.sample_every",
        )
    return None


def resolve(saes: dict[str, AttachedSae], request: SteeringRequest) -> Steering | None:
    """The knobs as table rows; None when there are none, which is the base model."""
    by_sae: dict[str, list[Coefficients]] = defaultdict(list)
    for feature in request.features:
        sae = _sae(saes, feature.sae, f"feature {feature.index}")
        by_sae[sae].append(_coefficients(saes[sae], feature, request.reference_norm))
    for sae, features in by_sae.items():
        _check_features(sae, features)
    if not by_sae:
        return None
    taps = tuple(TapSteering(sae, tuple(features), saes[sae].facts.id) for sae, features in sorted(by_sae.items()))
    return Steering(
        taps=taps,
        positions=request.positions,
        skip=_skip(saes, by_sae, request.skip),
        skip_constrained=request.skip_constrained,
    )


def _model(state: State, asked: str) -> tuple[LoadedModel, str | None]:
    """`model` or `model:profile`. A profile's name holds no colon, so the last one separates."""
    model = _loaded(state)
    if asked == model.name:
        return model, None
    name, separator, profile = asked.rpartition(":")
    if separator and name == model.name:
        return model, profile
    raise ModelNotFound(f"The model `{asked[:128]}` does not exist", param="model")


def _loaded(state: State) -> LoadedModel:
    return state.model_or_raise()


def _following(state: State, loaded: LoadedModel) -> Selection:
    """What is active; the base model where that cannot be had any more, which the answer then says."""
    if state.active is None:
        return Selection(loaded, follows_active=True)
    if any(tap.sae not in state.saes for tap in state.active.steering.taps):
        return Selection(loaded, degraded=state.engine.degraded or "the SAE of the active steering is not attached")
    return Selection(loaded, state.active.profile, state.active.steering, follows_active=True)


def _of_profile(state: State, loaded: LoadedModel, name: str) -> tuple[Profile, Steering | None]:
    found = state.profiles.find(name)
    _check_model(found, loaded)
    return found, _resolved(state, found)


def _resolved(state: State, asked: SteeringRequest) -> Steering | None:
    if asked.features:
        _check_attached(state)
    return resolve(state.saes, asked)


def _check_attached(state: State) -> None:
    if state.engine.degraded and not state.saes:
        raise SaeDetached(
            f"no SAE can be used: {state.engine.degraded}; restart the server to attach it again,"
            " or ask without steering and activations"
        )


def _sae(saes: dict[str, AttachedSae], asked: str | None, what: str) -> str:
    known = ", ".join(sorted(saes)) or "none"
    if asked is not None:
        if asked not in saes:
            raise InvalidSteering(
                f"{what}: no SAE named {asked[:128]!r} is attached; attached: {known}", param="steering"
            )
        return asked
    if len(saes) != 1:
        raise InvalidSteering(f"{what}: say which `sae` is meant; attached: {known}", param="steering")
    return next(iter(saes))


def _coefficients(sae: AttachedSae, feature: ProfileFeature, reference_norm: float | None) -> Coefficients:
    _check_index(feature.index, sae.facts.sae, sae.facts.features, "steering.features")
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


def _check_index(index: int, sae: str, features: int, param: str) -> None:
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


def _skip(saes: dict[str, AttachedSae], by_sae: dict[str, list[Coefficients]], asked: Skip | None) -> Skip:
    """Activations at position 0 are no measurement (attention sink), so modes that read them always skip it."""
    reading = [sae for sae, features in by_sae.items() if any(reads_activation(feature) for feature in features)]
    if asked == "none" and reading:
        raise InvalidSteering(
            "skip 'none' is for mode 'add' only: other modes read the activation", param="steering.skip"
        )
    if asked is not None:
        return asked
    return "special" if any(saes[sae].facts.exclude_special_tokens for sae in reading) else "bos"


def _check_model(profile: Profile, loaded: LoadedModel) -> None:
    """A feature's index means something for one model only."""
    if profile.model and not is_same_model(profile.model.repo_id, loaded.name):
        raise InvalidSteering(
            f"profile {profile.name!r} was made for {profile.model.repo_id}, not for {loaded.name};"
            " where both are one model, take `model` out of the profile",
            param="profile",
        )


def _fits(saes: dict[str, AttachedSae], profile: Profile, loaded: LoadedModel) -> bool:
    try:
        _check_model(profile, loaded)
        resolve(saes, profile)
    except InvalidSteering:
        return False
    return True
