"""Which features fire on a text: token by token as they are read, and over all of its tokens that count.

Which features separate two sets of texts: one number for each feature and text, and a standardised difference.

A text's number is the feature's mean activation over its tokens, so that long texts do not weigh more. The score is
Welch's t with a constant added to its denominator, as in SAM (Tusher, Tibshirani & Chu 2001,
doi:10.1073/pnas.091062498): without it, features that hardly fire and never vary come first. Pure; knows no model.

Labels of several SAEs that fit a search, as one page.

Texts as the token ids that the model reads, checked before the engine is asked anything about them.

A profile made of the features that were found: a document that `POST /api/profiles` takes, and nothing saved.

A contrast as it is told: with labels, and with a profile made of what was found.
"""

import asyncio
import math
import statistics
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

import msgspec

from millm.engine.messages import Embed, FeatureActivity, FeaturesScanned, Reading, ScanFeatures, TextEmbedded
from millm.errors import ContextLengthExceeded, InvalidRequest, Timeout
from millm.features.card import USUAL_NORM_SHARE, label_text
from millm.hub.labels import Label, Labels
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.resolve import reference_to_attached
from millm.profiles.schema import ModelReference, Profile, ProfileFeature, Provenance
from millm.sae.steering import Watch
from millm.state import State

MIN_S0_SHARE = 1e-3
"""Of the residual norm: the constant is at least that, also where nothing varies."""


class Separation(msgspec.Struct, frozen=True, kw_only=True):
    """One feature on both sets of texts."""

    index: int
    score: float
    """(mean_a − mean_b) / (standard error + s0)."""
    auc: float
    """How often a text of A has more of it than one of B, 0 to 1; ties count half."""
    mean_a: float
    """Mean over the texts of the mean activation per token."""
    mean_b: float
    largest: float
    """At any token of either set."""


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """The features that fire more on A, and those that fire more on B, the clearest first."""

    more_in_a: tuple[Separation, ...]
    more_in_b: tuple[Separation, ...]
    s0: float
    """What was added to the denominators, in residual units."""


def contrast(
    a: Sequence[FeaturesScanned], b: Sequence[FeaturesScanned], *, limit: int, residual_norm: float
) -> Contrast:
    """At most `limit` each way. Each set has one text or more."""
    numbers = _mean_activations(a, b)
    differences = {index: _mean_difference(*both) for index, both in numbers.items()}
    errors = [error for _, error in differences.values()]
    s0 = max(statistics.median(errors) if errors else 0.0, MIN_S0_SHARE * residual_norm)
    scores = {index: difference / (error + s0) for index, (difference, error) in differences.items()}
    largest = _max_activations([*a, *b])

    def told(ordered: Iterable[int], sign: int) -> tuple[Separation, ...]:
        kept = [index for index in ordered if sign * scores[index] > 0][:limit]
        return tuple(_build_separation(index, scores[index], *numbers[index], largest[index]) for index in kept)

    falling = sorted(scores, key=lambda index: (-scores[index], index))
    return Contrast(more_in_a=told(falling, 1), more_in_b=told(reversed(falling), -1), s0=s0)


def _build_separation(index: int, score: float, a: Sequence[float], b: Sequence[float], largest: float) -> Separation:
    return Separation(
        index=index,
        score=score,
        auc=roc_auc(a, b),
        mean_a=_mean(a),
        mean_b=_mean(b),
        largest=largest,
    )


def roc_auc(a: Sequence[float], b: Sequence[float]) -> float:
    """P(x > y) + ½ P(x = y) for x of `a` and y of `b`: the area under the ROC curve (Hanley & McNeil 1982)."""
    above = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    return above / (len(a) * len(b))


def _mean_activations(
    a: Sequence[FeaturesScanned], b: Sequence[FeaturesScanned]
) -> Mapping[int, tuple[list[float], list[float]]]:
    """Feature → its mean activation per token on each text of either set; 0 where it never fired."""
    found: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([0.0] * len(a), [0.0] * len(b)))
    for side, texts in enumerate((a, b)):
        for place, text in enumerate(texts):
            for fired in text.features:
                found[fired.index][side][place] = fired.total / text.tokens
    return found


def _mean_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """(difference of the means, its standard error after Welch)."""
    return _mean(a) - _mean(b), math.sqrt(_squared_standard_error(a) + _squared_standard_error(b))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _squared_standard_error(values: Sequence[float]) -> float:
    """Of their mean; of a single text nothing is known about how it varies."""
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def _max_activations(texts: Sequence[FeaturesScanned]) -> Mapping[int, float]:
    found: dict[int, float] = defaultdict(float)
    for text in texts:
        for fired in text.features:
            found[fired.index] = max(found[fired.index], fired.largest)
    return found


class FoundLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that was searched for."""

    sae: str
    index: int
    label: str
    max_act: float | None
    density: float | None
    source: str


class FoundLabels(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the features whose labels fit."""

    total: int
    features: tuple[FoundLabel, ...]


class PutLabels(msgspec.Struct, frozen=True, kw_only=True):
    """What an import brought."""

    sae: str
    labels: int


def search_labels_page(labels: Labels, saes: list[str], text: str, limit: int, offset: int) -> FoundLabels:
    """The best first, whichever SAE they are of."""
    found = [(one.rank, one.length, sae, one.label) for sae in saes for one in labels.search_index(sae).search(text)]
    if len(saes) > 1:
        found.sort(key=lambda one: (*one[:3], one[3].index))
    page = found[offset : offset + limit]
    return FoundLabels(total=len(found), features=tuple(label_match(sae, label) for _, _, sae, label in page))


def label_match(sae: str, label: Label) -> FoundLabel:
    return FoundLabel(
        sae=sae,
        index=label.index,
        label=label.label,
        max_act=label.max_act,
        density=label.density,
        source=label.source,
    )


Result = TypeVar("Result")
TokenIds = Sequence[int]


def encode_text(model: LoadedModel, text: str, name: str) -> list[int]:
    """As a completion would read it, or an encoder. Raises InvalidRequest or ContextLengthExceeded naming `name`."""
    most = model.facts.context_length
    if not model.tokenizer.can_fit(text, most):
        raise _context_length_error(name, most, f"more than {most}")
    read = model.tokenizer.encode if model.facts.generates else model.tokenizer.encode_with_special_tokens
    return check_token_ids(model, read(text), name)


def check_token_ids(model: LoadedModel, ids: list[int], name: str) -> list[int]:
    """Raises InvalidRequest or ContextLengthExceeded naming `name`."""
    most = model.facts.context_length
    if not ids:
        raise InvalidRequest(f"`{name}` holds nothing that this model reads.", param=name)
    if max(ids) >= model.facts.vocab_size:
        raise InvalidRequest(f"`{name}` takes token ids from 0 to {model.facts.vocab_size - 1}.", param=name)
    if len(ids) > most:
        raise _context_length_error(name, most, str(len(ids)))
    return ids


async def survey_texts(
    state: State, attached: AttachedSae, texts: Sequence[TokenIds], job_id: str
) -> list[FeaturesScanned]:
    """Which features fire on each text. Raises Timeout, or what the engine raises."""
    model, facts = state.model_or_raise(), attached.facts
    asked = [
        ScanFeatures(
            id=f"{job_id}-{place}",
            sae=facts.sae,
            tokens=tuple(ids),
            deadline_seconds=state.settings.request_timeout,
            attachment=facts.id,
            model=model.facts.id,
        )
        for place, ids in enumerate(texts)
    ]
    return await with_request_timeout(state, state.engine.scan_features(*asked))


async def with_request_timeout(state: State, work: Awaitable[Result]) -> Result:
    """The texts of a long job reach the engine one after the other, so its deadlines alone would not do.

    Raises Timeout, or what `work` raises.
    """
    seconds = state.settings.request_timeout
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise Timeout(f"this request took longer than {seconds:g} s; ask for less") from error


def _context_length_error(name: str, limit: int, found: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"This model's maximum context length is {limit} tokens, and `{name}` has {found}; shorten it.", param=name
    )


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


STRENGTH_NOTE = (
    f"Strengths are shares of the residual norm, in proportion to how clearly a feature separates the texts; together"
    f" {USUAL_NORM_SHARE:g} × norm at most, which is a place to begin: try less and more."
)


def profile_from_separations(
    name: str, separations: Sequence[Separation], attached: AttachedSae, model: LoadedModel, labels: Labels
) -> Profile | None:
    """None where nothing was found, or the SAE only reads."""
    facts = attached.facts
    if not separations or not facts.steerable:
        return None
    whole = math.fsum(one.score for one in separations)
    features = tuple(
        ProfileFeature(
            index=one.index,
            strength=_floor_to_thousandth(USUAL_NORM_SHARE * one.score / whole),
            unit="norm",
            sae=facts.sae,
            label=label_text(labels, facts.sae, one.index),
        )
        for one in separations
    )
    return Profile(
        name=name,
        description="Made of the features that separate two sets of texts.",
        model=ModelReference(repo_id=model.name),
        saes=(reference_to_attached(attached),),
        features=features,
        provenance=Provenance(source="millm", format="contrast", note=STRENGTH_NOTE),
    )


def _floor_to_thousandth(strength: float) -> float:
    """To a thousandth, so that the sum never exceeds what it says."""
    return math.floor(strength * 1000) / 1000


class Separator(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that separates the texts."""

    index: int
    label: str | None
    score: float
    """Standardised difference of the means: the larger, the clearer."""
    auc: float
    """How often a text of A has more of it than one of B, 0 to 1."""
    mean_a: float
    mean_b: float
    max: float
    """At any token."""


class Separators(msgspec.Struct, frozen=True, kw_only=True):
    """The features that separate two sets of texts, the clearest first."""

    sae: str
    more_in_a: tuple[Separator, ...]
    more_in_b: tuple[Separator, ...]
    profile: dict[str, Any] | None
    """Of the first of `more_in_a`, as `POST /api/profiles` takes it; null where there are none to steer."""


def build_separators(
    state: State, attached: AttachedSae, result: Contrast, *, limit: int, profile_features: int, name: str
) -> Separators:
    """`limit`: each way. `make`: features of the profile, which is called `name`."""
    profile = profile_from_separations(
        name, result.more_in_a[:profile_features], attached, state.model_or_raise(), state.labels
    )
    return Separators(
        sae=attached.facts.sae,
        more_in_a=_labelled_separators(state, attached, result.more_in_a[:limit]),
        more_in_b=_labelled_separators(state, attached, result.more_in_b[:limit]),
        profile=profile.model_dump(mode="json", exclude_none=True) if profile else None,
    )


def _labelled_separators(
    state: State, attached: AttachedSae, separations: tuple[Separation, ...]
) -> tuple[Separator, ...]:
    sae = attached.facts.sae
    return tuple(
        Separator(
            index=one.index,
            label=label_text(state.labels, sae, one.index),
            score=one.score,
            auc=one.auc,
            mean_a=one.mean_a,
            mean_b=one.mean_b,
            max=one.largest,
        )
        for one in separations
    )
