"""Selects the steering of a request: `steering` > `profile` > `model:profile` > the server's active steering.

The steering is resolved once, on arrival; a steering that cannot be applied exactly is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from millm.engine.messages import SaeFacts
from millm.errors import InvalidProfile, InvalidSteering, ModelNotFound, ModelNotLoaded, SaeDetached
from millm.loaded import LoadedModel
from millm.profiles.active import ActiveSteeringState
from millm.profiles.resolve import (
    bind_profile,
    check_index,
    check_model,
    incompatibility,
    resolve_sae_name,
    resolve_steering,
)
from millm.profiles.schema import ActivationsRequest, Profile, SteeringRequest
from millm.sae.steering import Steering, Watch
from millm.state import State


@dataclass(frozen=True)
class Selection:
    """The model and steering of a request."""

    model: LoadedModel
    profile: str | None = None
    steering: Steering | None = None
    follows_active: bool = False
    """The request names no steering: it follows the active one, including changes while it runs."""
    degraded: str | None = None
    """Why the active steering is not applied."""


@dataclass(frozen=True)
class ModelCard:
    """One entry of `/v1/models`."""

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
        raise ModelNotLoaded("the server is starting; try again in a moment")
    loaded, alias = _parse_model_name(state, model)
    if steering_given:
        return Selection(loaded, None, _resolve_request(state, steering) if steering else None)
    name = profile if profile is not None else alias
    if name is None:
        return _select_active(state, loaded)
    named = state.profiles.find(name)
    _check_profile(state, loaded, named)
    return Selection(loaded, named.name, _resolve_request(state, bind_profile(state.saes, named)))


def resolve_active(
    state: State, *, steering: SteeringRequest | None = None, profile: str | None = None
) -> ActiveSteeringState | None:
    """The active steering that a request or profile would become; None is the base model.

    Raises ModelNotLoaded, ProfileNotFound, InvalidProfile, InvalidSteering or SaeDetached.
    """
    state.model_or_raise()
    if profile is None:
        return build_active(state, ActiveSteeringState(None, steering)) if steering else None
    return active_from_profile(state, state.profiles.find(profile))


def active_from_profile(state: State, profile: Profile) -> ActiveSteeringState:
    """Raises as `resolve_active` does."""
    _check_profile(state, state.model_or_raise(), profile)
    active = build_active(state, ActiveSteeringState(profile.name, bind_profile(state.saes, profile)))
    if active is None:
        raise InvalidProfile(f"profile {profile.name!r} has no features", param="profile")
    return active


def build_active(state: State, active: ActiveSteeringState) -> ActiveSteeringState | None:
    """`active` resolved against the attached SAEs; None without features.

    All features are checked, muted ones too. Raises as `resolve_active` does.
    """
    state.model_or_raise()
    if _resolve_request(state, active.request) is None:
        return None
    features = tuple(
        one.model_copy(update={"sae": resolve_sae_name(state.saes, one.sae, f"feature {one.index}")})
        for one in active.request.features
    )
    active = replace(active, request=active.request.model_copy(update={"features": features}))
    return replace(active, steering=resolve_steering(state.saes, active.effective_request))


def model_cards(state: State) -> list[ModelCard]:
    """The loaded model, then one card per applicable profile."""
    model = state.model
    if model is None:
        return []
    own = ModelCard(model.name, model.name, model.created, None, "")
    profiles = _applicable_profiles(state, model) if state.settings.profile_models == "auto" else ()
    return [own, *(_profile_card(model, profile) for profile in profiles)]


def _applicable_profiles(state: State, model: LoadedModel) -> Sequence[Profile]:
    saes, profiles = state.saes, state.profiles
    return state.model_list_cache.get(
        (profiles, profiles.revision, model, saes),
        lambda: [profile for profile in profiles.all() if incompatibility(model, saes, profile) is None],
    )


def _profile_card(model: LoadedModel, profile: Profile) -> ModelCard:
    return ModelCard(
        f"{model.name}:{profile.name}",
        f"{model.name} · {profile.name}",
        model.created,
        profile.name,
        profile.description,
    )


def library_cards(state: State) -> list[ModelCard]:
    """Further models that requests may name for an on-demand load. Reads the disk."""
    loaded = state.model.name if state.model else None
    return [
        ModelCard(entry.id, entry.id, int(entry.last_used or 0), None, "loaded on demand")
        for entry in state.hub.library.models()
        if entry.state == "whole" and entry.id != loaded
    ]


def resolve_watches(state: State, request: ActivationsRequest) -> tuple[Watch, ...]:
    """A request's `activations` for the engine. Raises InvalidSteering or SaeDetached."""
    _check_attached(state)
    sae = resolve_sae_name(state.saes, request.sae, "activations")
    if not request.features and not request.top_k:
        raise InvalidSteering("activations: name `features`, or a `top_k` of at least 1", param="activations")
    facts = state.saes[sae].facts
    for index in request.features:
        check_index(index, sae, facts.features, "activations.features")
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


def _parse_model_name(state: State, requested: str) -> tuple[LoadedModel, str | None]:
    """`model` or `model:profile`; model names contain no colon."""
    model = state.model_or_raise()
    if requested == model.name:
        return model, None
    name, separator, profile = requested.partition(":")
    if separator and name == model.name:
        return model, profile
    raise ModelNotFound(f"The model `{requested[:128]}` does not exist", param="model")


def _select_active(state: State, loaded: LoadedModel) -> Selection:
    """The active steering; the base model with a `degraded` reason where one of its SAEs is not attached."""
    if state.active is None or state.active.steering is None:
        return Selection(loaded, follows_active=True)
    if any(tap.sae not in state.saes for tap in state.active.steering.by_sae):
        return Selection(
            loaded, degraded=state.engine.degraded_reason or "the SAE of the active steering is not attached"
        )
    return Selection(loaded, state.active.profile, state.active.steering, follows_active=True)


def _check_profile(state: State, loaded: LoadedModel, profile: Profile) -> None:
    check_model(profile, loaded)
    if profile.features:
        _check_attached(state)


def _resolve_request(state: State, request: SteeringRequest) -> Steering | None:
    if request.features:
        _check_attached(state)
    return resolve_steering(state.saes, request)


def _check_attached(state: State) -> None:
    if state.engine.degraded_reason and not state.saes:
        raise SaeDetached(
            f"no SAE can be used: {state.engine.degraded_reason}; restart the server to attach it again,"
            " or ask without steering and activations"
        )
