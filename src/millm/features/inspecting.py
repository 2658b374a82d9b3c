"""Which features fire on a text: token by token as they are read, and over all of its tokens that count."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from millm.engine.messages import Embed, FeatureActivity, FeaturesScanned, Reading, TextEmbedded
from millm.features.card import label_text
from millm.features.texts import TokenIds, survey_texts, with_request_timeout
from millm.hub.labels import Labels
from millm.loaded import AttachedSae, LoadedModel
from millm.sae.steering import Watch
from millm.state import State

MAX_FIRINGS = 200_000
"""Of one answer: tokens × `top_k`."""


class Firing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A feature at a token."""

    index: int
    activation: float
    label: str | None = None


class ReadToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token, and what fires there."""

    position: int
    id: int
    token: str
    counts: bool
    """False at position 0 and for special tokens, where there are others: what fires there says little of the text."""
    top: tuple[Firing, ...]
    values: tuple[float, ...]
    """Of the features that were asked for, in their order."""


class FeatureOnText(msgspec.Struct, frozen=True, kw_only=True):
    """A feature over the tokens that count."""

    index: int
    label: str | None
    max: float
    mean: float
    """Over all of them, also those where it is silent."""
    count: int
    """Tokens at which it fires."""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """Which features fire on a text."""

    sae: str
    tokens: tuple[ReadToken, ...]
    counted: int
    """Tokens that count."""
    features: tuple[FeatureOnText, ...]
    """The strongest first; those that were asked for are among them, also if they are silent."""
    fired: int
    """Features of the whole dictionary that fire at all."""


async def inspect(
    state: State, attached: AttachedSae, ids: TokenIds, *, top_k: int, features: Sequence[int], limit: int, job_id: str
) -> Inspection:
    """`features`: to tell at every token. `limit`: of those over the whole text. Raises MillmError."""
    model = state.model_or_raise()
    (embedded,) = await with_request_timeout(
        state, state.engine.embed(_embed_command(state, model, attached, ids, top_k, features, job_id))
    )
    (survey,) = await survey_texts(state, attached, [ids], job_id)
    labels = state.labels
    return Inspection(
        sae=attached.facts.sae,
        tokens=tuple(_read_tokens(model, attached.facts.sae, ids, embedded, labels)),
        counted=survey.tokens,
        features=tuple(_summarize_features(survey, attached.facts.sae, frozenset(features), limit, labels)),
        fired=len(survey.features),
    )


def _embed_command(
    state: State,
    model: LoadedModel,
    attached: AttachedSae,
    ids: TokenIds,
    top_k: int,
    features: Sequence[int],
    job_id: str,
) -> Embed:
    watch = Watch(
        sae=attached.facts.sae,
        features=tuple(features),
        top_k=top_k,
        tokens="prompt",
        sample_every=1 if top_k else None,
        attachment=attached.facts.id,
    )
    return Embed(
        id=f"{job_id}-read",
        tokens=tuple(ids),
        watch=(watch,),
        deadline_seconds=state.settings.request_timeout,
        model=model.facts.id,
    )


def _read_tokens(
    model: LoadedModel, sae: str, ids: TokenIds, embedded: TextEmbedded, labels: Labels
) -> Iterable[ReadToken]:
    readings: Mapping[int, Reading] = {reading.position: reading for reading in embedded.readings}
    counting = _counted_positions(ids, model.tokenizer.special_ids)
    for position, id in enumerate(ids):
        reading = readings.get(position, Reading(sae, position, ()))
        yield ReadToken(
            position=position,
            id=id,
            token=model.tokenizer.token_text(id),
            counts=position in counting,
            top=tuple(
                Firing(index, activation, label_text(labels, sae, index))
                for index, activation in reading.top
                if activation
            ),
            values=reading.values,
        )


def _counted_positions(ids: TokenIds, special_ids: AbstractSet[int]) -> AbstractSet[int]:
    """Positions that a survey counts (`engine/surveying.py`)."""
    behind = range(1, len(ids))
    return {position for position in behind if ids[position] not in special_ids} or set(behind) or {0}


def _summarize_features(
    survey: FeaturesScanned, sae: str, requested: AbstractSet[int], limit: int, labels: Labels
) -> Iterable[FeatureOnText]:
    ordered = sorted(survey.features, key=lambda fired: (-fired.largest, fired.index))
    kept = {fired.index: fired for fired in ordered[:limit]}
    kept |= {fired.index: fired for fired in ordered[limit:] if fired.index in requested}
    kept |= {index: FeatureActivity(index, 0, 0.0, 0.0) for index in sorted(requested - kept.keys())}
    for fired in kept.values():
        yield FeatureOnText(
            index=fired.index,
            label=label_text(labels, sae, fired.index),
            max=fired.largest,
            mean=fired.total / survey.tokens,
            count=fired.count,
        )
