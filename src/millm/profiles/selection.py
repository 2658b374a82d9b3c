"""Which steering applies to a request: `steering` > `profile` > `model:profile` > what is active on the server.

Resolved once, at the door, into values that the engine only has to look at. Never silently unsteered: whatever
cannot be applied exactly is refused by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millm.engine.messages import SaeFacts, Watch
from millm.errors import InvalidProfile, InvalidSteering, ModelNotFound, ModelNotLoaded, SaeDetached
from millm.profiles.active import Active, Knob, heard
from millm.profiles.binding import bind, check_model, misfit
from millm.profiles.contract import ActivationsRequest, Profile, SteeringRequest
from millm.profiles.resolving import check_index, resolve, sae_of
from millm.sae.steering import Steering
from millm.state import LoadedModel, State


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
    found = state.profiles.find(name)
    _check(state, loaded, found)
    return Selection(loaded, found.name, _resolved(state, bind(state.saes, found)))


def active(state: State, *, steering: SteeringRequest | None = None, profile: str | None = None) -> Active | None:
    """What would be active on the server; None is the base model.

    Raises ModelNotLoaded, ProfileNotFound, InvalidProfile, InvalidSteering or SaeDetached.
    """
    state.model_or_raise()
    if profile is None:
        return racked(state, steering) if steering else None
    return applied(state, state.profiles.find(profile))


def applied(state: State, found: Profile) -> Active:
    """What would be active with this profile. Raises as `active` does."""
    _check(state, state.model_or_raise(), found)
    made = racked(state, bind(state.saes, found), profile=found.name)
    if made is None:
        raise InvalidProfile(f"profile {found.name!r} steers nothing", param="profile")
    return made


def racked(
    state: State,
    asked: SteeringRequest,
    *,
    profile: str | None = None,
    muted: frozenset[Knob] = frozenset(),
    solo: frozenset[Knob] = frozenset(),
    on: bool = True,
    is_modified: bool = False,
) -> Active | None:
    """A steering with its knobs, checked whether they are heard or not; None: it has none. Raises as `active` does."""
    state.model_or_raise()
    if _resolved(state, asked) is None:
        return None
    features = tuple(
        one.model_copy(update={"sae": sae_of(state.saes, one.sae, f"feature {one.index}")}) for one in asked.features
    )
    named = asked.model_copy(update={"features": features})
    steering = resolve(state.saes, heard(named, muted, solo, on=on))
    return Active(profile, named, steering, muted, solo, on, is_modified)


def model_cards(state: State) -> list[ModelCard]:
    """The model, then one card per profile that can be applied to what is attached."""
    model = state.model
    if model is None:
        return []
    own = ModelCard(model.name, model.name, model.created, None, "")
    profiles = _fitting(state, model) if state.settings.profile_models == "auto" else ()
    return [own, *(_card(model, profile) for profile in profiles)]


def _fitting(state: State, model: LoadedModel) -> Sequence[Profile]:
    saes, profiles = state.saes, state.profiles
    return state.menu.fitting(
        (profiles, profiles.revision, model, saes),
        lambda: [profile for profile in profiles.all() if misfit(model, saes, profile) is None],
    )


def _card(model: LoadedModel, profile: Profile) -> ModelCard:
    return ModelCard(
        f"{model.name}:{profile.name}",
        f"{model.name} · {profile.name}",
        model.created,
        profile.name,
        profile.description,
    )


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
    sae = sae_of(state.saes, request.sae, "activations")
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


def _model(state: State, asked: str) -> tuple[LoadedModel, str | None]:
    """`model` or `model:profile`. A model's name holds no colon, so the first one separates."""
    model = state.model_or_raise()
    if asked == model.name:
        return model, None
    name, separator, profile = asked.partition(":")
    if separator and name == model.name:
        return model, profile
    raise ModelNotFound(f"The model `{asked[:128]}` does not exist", param="model")


def _following(state: State, loaded: LoadedModel) -> Selection:
    """What is active; the base model where that cannot be had any more, which the answer then says."""
    if state.active is None or state.active.steering is None:
        return Selection(loaded, follows_active=True)
    if any(tap.sae not in state.saes for tap in state.active.steering.taps):
        return Selection(loaded, degraded=state.engine.degraded or "the SAE of the active steering is not attached")
    return Selection(loaded, state.active.profile, state.active.steering, follows_active=True)


def _check(state: State, loaded: LoadedModel, found: Profile) -> None:
    check_model(found, loaded)
    if found.features:
        _check_attached(state)


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
