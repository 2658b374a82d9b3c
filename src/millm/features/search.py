"""Finding features: by their labels, by their activations on a text, and by contrasting two sets of texts.

The contrast compares a feature's mean activation per text, so that long texts do not weigh more. The score is Welch's t
with a constant added to its denominator, as in SAM (Tusher, Tibshirani & Chu 2001, doi:10.1073/pnas.091062498); without
the constant, features that hardly fire and never vary come first.
"""

import asyncio
import math
import statistics
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from millm.engine.messages import Embed, FeatureActivity, FeaturesScanned, Reading, ScanFeatures, TextEmbedded
from millm.errors import ContextLengthExceeded, InvalidRequest, Timeout
from millm.features.card import USUAL_NORM_SHARE, label_text
from millm.hub.labels import Label, Labels
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.resolve import reference_to_attached
from millm.profiles.schema import ModelReference, Profile, ProfileFeature, Provenance
from millm.sae.steering import Watch
from millm.state import State

Result = TypeVar("Result")
TokenIds = Sequence[int]
MAX_FIRINGS = 200_000
"""Tokens × `top_k` of one response."""
MIN_S0_SHARE = 1e-3
"""Minimum of the score's constant, as a share of the residual norm."""
STRENGTH_NOTE = (
    f"Strengths are shares of the residual norm, in proportion to how clearly a feature separates the texts; together"
    f" {USUAL_NORM_SHARE:g} × norm at most, which is a place to begin: try less and more."
)


class Separator(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that separates the texts."""

    index: int
    label: str | None
    score: float
    """(mean_a − mean_b) / (standard error + s0): the larger, the clearer."""
    auc: float
    """Probability that a text of A activates it more than one of B, 0 to 1; ties count half."""
    mean_a: float
    """Mean over the texts of the mean activation per token."""
    mean_b: float
    max: float
    """Maximum over all tokens of both sets."""


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """The features that fire more on A, and those that fire more on B, highest score first."""

    more_in_a: tuple[Separator, ...]
    more_in_b: tuple[Separator, ...]
    s0: float
    """The constant in the denominators, in residual units."""


def contrast(
    a: Sequence[FeaturesScanned], b: Sequence[FeaturesScanned], *, limit: int, residual_norm: float
) -> Contrast:
    """At most `limit` features of each direction. Each set has at least one text."""
    means = _mean_activations(a, b)
    differences = {index: _mean_difference(*both) for index, both in means.items()}
    errors = [error for _, error in differences.values()]
    s0 = max(statistics.median(errors) if errors else 0.0, MIN_S0_SHARE * residual_norm)
    scores = {index: difference / (error + s0) for index, (difference, error) in differences.items()}
    max_acts = _max_activations([*a, *b])

    def separators(ranking: Iterable[int], sign: int) -> tuple[Separator, ...]:
        return tuple(
            Separator(
                index=index,
                label=None,
                score=scores[index],
                auc=roc_auc(*means[index]),
                mean_a=_mean(means[index][0]),
                mean_b=_mean(means[index][1]),
                max=max_acts[index],
            )
            for index in [index for index in ranking if sign * scores[index] > 0][:limit]
        )

    ranking = sorted(scores, key=lambda index: (-scores[index], index))
    return Contrast(more_in_a=separators(ranking, 1), more_in_b=separators(reversed(ranking), -1), s0=s0)


def roc_auc(a: Sequence[float], b: Sequence[float]) -> float:
    """P(x > y) + ½ P(x = y) for x of `a` and y of `b`: the area under the ROC curve (Hanley & McNeil 1982)."""
    above = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    return above / (len(a) * len(b))


def _mean_activations(
    a: Sequence[FeaturesScanned], b: Sequence[FeaturesScanned]
) -> Mapping[int, tuple[list[float], list[float]]]:
    """Feature → its mean activation per token on each text of (A, B); 0 where it never fired."""
    means: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([0.0] * len(a), [0.0] * len(b)))
    for side, texts in enumerate((a, b)):
        for position, text in enumerate(texts):
            for fired in text.features:
                means[fired.index][side][position] = fired.total / text.tokens
    return means


def _mean_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """(difference of the means, its Welch standard error)."""
    return _mean(a) - _mean(b), math.sqrt(_squared_standard_error(a) + _squared_standard_error(b))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _squared_standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 for a single text, whose variance is unknown."""
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def _max_activations(texts: Sequence[FeaturesScanned]) -> Mapping[int, float]:
    largest: dict[int, float] = defaultdict(float)
    for text in texts:
        for fired in text.features:
            largest[fired.index] = max(largest[fired.index], fired.largest)
    return largest


class FoundLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A feature with a matching label."""

    sae: str
    index: int
    label: str
    max_act: float | None
    density: float | None
    source: str


class FoundLabels(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the features with matching labels."""

    total: int
    features: tuple[FoundLabel, ...]


class PutLabels(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a label import."""

    sae: str
    labels: int
    """Number of labels."""


def search_labels_page(labels: Labels, saes: list[str], text: str, limit: int, offset: int) -> FoundLabels:
    """Best matches first, across all `saes`."""
    matches = [(one.rank, one.length, sae, one.label) for sae in saes for one in labels.search_index(sae).search(text)]
    if len(saes) > 1:
        matches.sort(key=lambda one: (*one[:3], one[3].index))
    page = matches[offset : offset + limit]
    return FoundLabels(total=len(matches), features=tuple(label_match(sae, label) for _, _, sae, label in page))


def label_match(sae: str, label: Label) -> FoundLabel:
    return FoundLabel(
        sae=sae,
        index=label.index,
        label=label.label,
        max_act=label.max_act,
        density=label.density,
        source=label.source,
    )


def encode_text(model: LoadedModel, text: str, name: str) -> list[int]:
    """Token ids as of a completion's prompt or an embedding. Raises InvalidRequest or ContextLengthExceeded."""
    limit = model.facts.context_length
    if not model.tokenizer.can_fit(text, limit):
        raise _context_length_error(name, limit, f"more than {limit}")
    encode = model.tokenizer.encode if model.facts.generates else model.tokenizer.encode_with_special_tokens
    return check_token_ids(model, encode(text), name)


def check_token_ids(model: LoadedModel, ids: list[int], name: str) -> list[int]:
    """Raises InvalidRequest or ContextLengthExceeded with `name` as the parameter."""
    limit = model.facts.context_length
    if not ids:
        raise InvalidRequest(f"`{name}` holds nothing that this model reads.", param=name)
    if max(ids) >= model.facts.vocab_size:
        raise InvalidRequest(f"`{name}` takes token ids from 0 to {model.facts.vocab_size - 1}.", param=name)
    if len(ids) > limit:
        raise _context_length_error(name, limit, str(len(ids)))
    return ids


async def survey_texts(
    state: State, attached: AttachedSae, texts: Sequence[TokenIds], job_id: str
) -> list[FeaturesScanned]:
    """The features that fire on each text. Raises Timeout or an engine error."""
    model, facts = state.model_or_raise(), attached.facts
    commands = [
        ScanFeatures(
            id=f"{job_id}-{number}",
            sae=facts.sae,
            tokens=tuple(ids),
            deadline_seconds=state.settings.request_timeout,
            attachment=facts.id,
            model=model.facts.id,
        )
        for number, ids in enumerate(texts)
    ]
    return await with_request_timeout(state, state.engine.scan_features(*commands))


async def with_request_timeout(state: State, work: Awaitable[Result]) -> Result:
    """Limit the total time: the engine's deadlines hold per text only. Raises Timeout or what `work` raises."""
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


class Firing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A feature's activation at a token."""

    index: int
    activation: float
    label: str | None = None


class ReadToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token and the features that fire on it."""

    position: int
    id: int
    token: str
    counts: bool
    """False at position 0 and for special tokens, unless the text has no others: they say little about the text."""
    top: tuple[Firing, ...]
    values: tuple[float, ...]
    """Activations of the requested features, in request order."""


class FeatureOnText(msgspec.Struct, frozen=True, kw_only=True):
    """A feature over the counted tokens."""

    index: int
    label: str | None
    max: float
    mean: float
    """Over all counted tokens, including those where it is 0."""
    count: int
    """Tokens at which it fires."""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """The features that fire on a text."""

    sae: str
    tokens: tuple[ReadToken, ...]
    counted: int
    """Number of counted tokens."""
    features: tuple[FeatureOnText, ...]
    """The strongest first; includes the requested features even where they are 0."""
    fired: int
    """Number of features of the dictionary that fire."""


async def inspect(
    state: State, attached: AttachedSae, ids: TokenIds, *, top_k: int, features: Sequence[int], limit: int, job_id: str
) -> Inspection:
    """`features`: reported at every token; `limit`: number of features over the text. Raises MillmError."""
    model, sae = state.model_or_raise(), attached.facts.sae
    watch = Watch(
        sae=sae,
        features=tuple(features),
        top_k=top_k,
        tokens="prompt",
        sample_every=1 if top_k else None,
        attachment=attached.facts.id,
    )
    command = Embed(
        id=f"{job_id}-read",
        tokens=tuple(ids),
        watch=(watch,),
        deadline_seconds=state.settings.request_timeout,
        model=model.facts.id,
    )
    (embedded,) = await with_request_timeout(state, state.engine.embed(command))
    (survey,) = await survey_texts(state, attached, [ids], job_id)
    return Inspection(
        sae=sae,
        tokens=tuple(_read_tokens(model, sae, ids, embedded, state.labels)),
        counted=survey.tokens,
        features=tuple(_summarize_features(survey, sae, frozenset(features), limit, state.labels)),
        fired=len(survey.features),
    )


def _read_tokens(
    model: LoadedModel, sae: str, ids: TokenIds, embedded: TextEmbedded, labels: Labels
) -> Iterable[ReadToken]:
    readings: Mapping[int, Reading] = {reading.position: reading for reading in embedded.readings}
    counted = _counted_positions(ids, model.tokenizer.special_ids)
    for position, id in enumerate(ids):
        reading = readings.get(position, Reading(sae, position, ()))
        yield ReadToken(
            position=position,
            id=id,
            token=model.tokenizer.token_text(id),
            counts=position in counted,
            top=tuple(
                Firing(index, activation, label_text(labels, sae, index))
                for index, activation in reading.top
                if activation
            ),
            values=reading.values,
        )


def _counted_positions(ids: TokenIds, special_ids: AbstractSet[int]) -> AbstractSet[int]:
    """The positions that the engine's feature scan counts."""
    positions = range(1, len(ids))
    return {position for position in positions if ids[position] not in special_ids} or set(positions) or {0}


def _summarize_features(
    survey: FeaturesScanned, sae: str, requested: AbstractSet[int], limit: int, labels: Labels
) -> Iterable[FeatureOnText]:
    ranking = sorted(survey.features, key=lambda fired: (-fired.largest, fired.index))
    selected = {fired.index: fired for fired in ranking[:limit]}
    selected |= {fired.index: fired for fired in ranking[limit:] if fired.index in requested}
    selected |= {index: FeatureActivity(index, 0, 0.0, 0.0) for index in sorted(requested - selected.keys())}
    for fired in selected.values():
        yield FeatureOnText(
            index=fired.index,
            label=label_text(labels, sae, fired.index),
            max=fired.largest,
            mean=fired.total / survey.tokens,
            count=fired.count,
        )


def profile_from_separations(
    name: str, separators: Sequence[Separator], attached: AttachedSae, model: LoadedModel, labels: Labels
) -> Profile | None:
    """A profile, not stored. None without features, or where the SAE cannot steer."""
    facts = attached.facts
    if not separators or not facts.steerable:
        return None
    total = math.fsum(one.score for one in separators)
    features = tuple(
        ProfileFeature(
            index=one.index,
            # rounded down, so that the sum never exceeds the share
            strength=math.floor(USUAL_NORM_SHARE * one.score / total * 1000) / 1000,
            unit="norm",
            sae=facts.sae,
            label=label_text(labels, facts.sae, one.index),
        )
        for one in separators
    )
    return Profile(
        name=name,
        description="Made of the features that separate two sets of texts.",
        model=ModelReference(repo_id=model.name),
        saes=(reference_to_attached(attached),),
        features=features,
        provenance=Provenance(source="millm", format="contrast", note=STRENGTH_NOTE),
    )


class Separators(msgspec.Struct, frozen=True, kw_only=True):
    """The features that separate two sets of texts, the clearest first."""

    sae: str
    more_in_a: tuple[Separator, ...]
    more_in_b: tuple[Separator, ...]
    profile: dict[str, Any] | None
    """A body for `POST /api/profiles` with the first of `more_in_a`; null where none can be steered."""


def build_separators(
    state: State, attached: AttachedSae, result: Contrast, *, limit: int, profile_features: int, name: str
) -> Separators:
    """`limit`: features of each direction; `profile_features`: features of the profile `name`."""
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
    state: State, attached: AttachedSae, separators: tuple[Separator, ...]
) -> tuple[Separator, ...]:
    return tuple(replace(one, label=label_text(state.labels, attached.facts.sae, one.index)) for one in separators)
