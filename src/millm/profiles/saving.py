"""The steering that is active now, as a profile that says by itself what it was made on."""

from collections.abc import Iterable

from pydantic import ValidationError

from millm.engine.messages import ModelFacts
from millm.errors import Conflict, InvalidProfile, SaeDetached
from millm.loaded import LoadedModel
from millm.profiles.active import ActiveSteeringState, effective_request
from millm.profiles.resolve import reference_to_attached
from millm.profiles.schema import ModelReference, Profile, Provenance, SaeReference, WatchedFeature
from millm.state import State


def profile_from_active(
    state: State,
    name: str,
    *,
    description: str = "",
    watch: tuple[WatchedFeature, ...] = (),
    example_prompts: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
) -> Profile:
    """With the knobs that are heard; the master switch is no part of it.

    Raises Conflict where nothing steers, SaeDetached, or InvalidProfile for a watched feature of an unknown SAE.
    """
    current, model = state.active, state.model_or_raise()
    if current is None:
        raise Conflict("nothing steers the server that could be saved; steer it first, or send a whole profile")
    _check_watch(state, watch)
    asked = effective_request(current.request, current.muted, current.solo)
    used = {feature.sae for feature in current.request.features} | {feature.sae for feature in watch}
    said = dict(
        **asked.model_dump(include={"positions", "skip", "skip_constrained", "reference_norm"}),
        name=name,
        description=description,
        model=_model_reference(model),
        saes=tuple(_sae_references(state, used - {None}, current)),
        features=asked.features,
        watch=watch,
        example_prompts=example_prompts,
        tags=tags,
        provenance=Provenance(source="millm"),
    )
    try:
        return Profile.model_validate(said)
    except ValidationError as error:
        raise InvalidProfile(error.errors(include_input=False, include_url=False)[0]["msg"]) from error


def _check_watch(state: State, watch: Iterable[WatchedFeature]) -> None:
    for feature in watch:
        if feature.sae not in (None, *state.saes):
            known = ", ".join(state.saes) or "none"
            raise InvalidProfile(f"`watch`: no SAE named {feature.sae!r} is attached; attached: {known}", param="watch")


def _model_reference(model: LoadedModel) -> ModelReference:
    repo_id, _, revision = model.name.partition("@")
    return ModelReference(repo_id=repo_id, revision=revision or None, quantization=_quantization(model.facts))


def _quantization(facts: ModelFacts) -> str | None:
    return facts.weights[:64] or None


def _sae_references(state: State, names: Iterable[str | None], current: ActiveSteeringState) -> Iterable[SaeReference]:
    """Strengths in `norm` may have been written against another norm than the one measured here."""
    for name in sorted(filter(None, names)):
        if name not in state.saes:
            raise SaeDetached(f"SAE {name!r} is not attached any more; attach it, and save then")
        reference = reference_to_attached(state.saes[name])
        norm = current.request.reference_norm or reference.reference_norm
        yield reference.model_copy(update={"reference_norm": norm})
