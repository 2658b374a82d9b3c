"""All that is known about one feature: its label, what its decoder row writes, its neighbours, how strong it gets.

Which attached SAE is meant, and whether it has such a feature.
"""

import asyncio

import msgspec

from millm.engine.messages import FeatureDescribed
from millm.errors import InvalidRequest, SaeDetached, SaeNotFound
from millm.hub.catalog import neuronpedia_link
from millm.hub.labels import Label, Labels
from millm.loaded import AttachedSae
from millm.monitoring.history import RequestFilter
from millm.monitoring.statistics import FeatureStatistics, feature_statistics
from millm.state import State
from millm.text.tokenizer import Tokenizer


def find_attached_sae(state: State, name: str | None) -> AttachedSae:
    """The one named, or the only one. Raises SaeNotFound, SaeDetached, or InvalidRequest where several are attached."""
    if state.engine.degraded_reason and not state.saes:
        raise SaeDetached(f"no SAE can be used: {state.engine.degraded_reason}; restart the server to attach it again")
    known = ", ".join(sorted(state.saes)) or "none"
    if name is not None and name not in state.saes:
        raise SaeNotFound(f"no SAE named {name[:128]!r} is attached; attached: {known}", param="sae")
    if not state.saes:
        raise SaeNotFound("no SAE is attached; attach one first: `millm saes` finds those for a model", param="sae")
    if name is None and len(state.saes) > 1:
        raise InvalidRequest(f"say which `sae` is meant; attached: {known}", param="sae")
    return state.saes[name] if name is not None else next(iter(state.saes.values()))


def check_feature_index(attached: AttachedSae, index: int, param: str) -> None:
    """Raises InvalidRequest."""
    facts = attached.facts
    if index >= facts.features:
        raise InvalidRequest(f"feature {index} is not in 0..{facts.features - 1} of SAE {facts.sae!r}", param=param)


USUAL_NORM_SHARE = 0.5
"""Of the residual norm: where steering is strong and mostly still coherent (docs/steering.md)."""


class PromotedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that a feature makes likelier, or less likely."""

    id: int
    token: str
    logit: float
    """Per unit of strength."""


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that points the same way."""

    index: int
    cosine: float
    label: str | None


class Strengths(msgspec.Struct, frozen=True, kw_only=True):
    """To begin with, in residual units: unit `raw`, mode `add`."""

    half_norm: float
    """Half the residual norm at the hook: the usual sweet spot."""
    half_max_act: float | None
    """Half of what the feature itself reaches, where that is known."""


class FeatureCard(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about one feature."""

    sae: str
    index: int
    label: str | None
    source: str | None
    """Of the label."""
    max_act: float | None
    density: float | None
    layer: int
    hook_point: str
    decoder_norm: float
    promoted: tuple[PromotedToken, ...]
    suppressed: tuple[PromotedToken, ...]
    neighbours: tuple[Neighbour, ...]
    strengths: Strengths
    observed: FeatureStatistics | None
    """In the requests of the history that watched it; None: none did."""
    neuronpedia: str | None
    """A link to its page, where the catalogue knows it."""


async def build_feature_card(state: State, attached: AttachedSae, index: int) -> FeatureCard:
    """Raises MillmError."""
    tokenizer = state.model_or_raise().tokenizer
    described = await state.feature_cache.get(state.engine, attached.facts, index)
    label = state.labels.get(attached.facts.sae, index) or Label(index)
    observed = await _observed_statistics(state, attached.facts.sae, index)
    return _assemble_card(attached, label, described, observed, tokenizer, state.labels)


async def _observed_statistics(state: State, sae: str, index: int) -> FeatureStatistics | None:
    which = RequestFilter(sae=sae, feature=index)
    entries = tuple(state.monitor.history.newest(which))
    return next(iter(await asyncio.to_thread(feature_statistics, entries, which)), None)


def _assemble_card(
    attached: AttachedSae,
    label: Label,
    described: FeatureDescribed,
    observed: FeatureStatistics | None,
    tokenizer: Tokenizer,
    labels: Labels,
) -> FeatureCard:
    facts = attached.facts
    return FeatureCard(
        sae=facts.sae,
        index=label.index,
        label=label.label or None,
        source=label.source or None,
        max_act=label.max_act,
        density=label.density,
        layer=facts.layer,
        hook_point=facts.hook_point,
        decoder_norm=described.decoder_norm,
        promoted=_promoted_tokens(described.promoted, tokenizer),
        suppressed=_promoted_tokens(described.suppressed, tokenizer),
        neighbours=tuple(
            Neighbour(index=index, cosine=cosine, label=label_text(labels, facts.sae, index))
            for index, cosine in described.neighbours
        ),
        strengths=Strengths(
            half_norm=USUAL_NORM_SHARE * facts.residual_norm,
            half_max_act=label.max_act and USUAL_NORM_SHARE * label.max_act,
        ),
        observed=observed,
        neuronpedia=neuronpedia_link(facts.sae, label.index),
    )


def label_text(labels: Labels, sae: str, index: int) -> str | None:
    """Its words, if it has any."""
    label = labels.get(sae, index)
    return label.label or None if label else None


def _promoted_tokens(logits: tuple[tuple[int, float], ...], tokenizer: Tokenizer) -> tuple[PromotedToken, ...]:
    return tuple(PromotedToken(id=id, token=tokenizer.token_text(id), logit=logit) for id, logit in logits)
