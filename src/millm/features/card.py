"""The card of a feature: label, promoted and suppressed tokens, neighbours, statistics and starting strengths."""

import asyncio

import msgspec

from millm.errors import InvalidRequest, SaeDetached, SaeNotFound
from millm.hub.catalog import neuronpedia_link
from millm.hub.labels import Label, Labels
from millm.loaded import AttachedSae
from millm.monitoring.history import RequestFilter
from millm.monitoring.statistics import FeatureStatistics, feature_statistics
from millm.profiles.resolve import check_index
from millm.state import State
from millm.text.tokenizer import Tokenizer

USUAL_NORM_SHARE = 0.5
"""Share of the residual norm where steering is strong and mostly still coherent (docs/steering.md)."""


def find_attached_sae(state: State, name: str | None) -> AttachedSae:
    """The SAE `name`, or the only one. Raises SaeNotFound, SaeDetached, or InvalidRequest if several are attached."""
    if state.engine.degraded_reason and not state.saes:
        raise SaeDetached(f"no SAE can be used: {state.engine.degraded_reason}; restart the server to attach it again")
    known = ", ".join(sorted(state.saes)) or "none"
    if name is not None and name not in state.saes:
        raise SaeNotFound(f"no SAE named {name[:128]!r} is attached; attached: {known}", param="sae")
    if not state.saes:
        raise SaeNotFound("no SAE is attached; attach one first: `millm saes` finds those for a model", param="sae")
    if name is None and len(state.saes) > 1:
        raise InvalidRequest(f"say which `sae`; attached: {known}", param="sae")
    return state.saes[name] if name is not None else next(iter(state.saes.values()))


def check_feature_index(attached: AttachedSae, index: int, param: str) -> None:
    """Raises InvalidRequest."""
    check_index(index, attached.facts.sae, attached.facts.features, param, InvalidRequest)


class PromotedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token whose logit a feature changes."""

    id: int
    token: str
    logit: float
    """Change per unit of strength."""


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A feature with a similar decoder row."""

    index: int
    cosine: float
    label: str | None


class Strengths(msgspec.Struct, frozen=True, kw_only=True):
    """Starting strengths in residual units: unit `raw`, mode `add`."""

    half_norm: float
    """Half the residual norm at the hook: the usual sweet spot."""
    half_max_act: float | None
    """Half the feature's maximum activation, where known."""


class FeatureCard(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about one feature."""

    sae: str
    index: int
    label: str | None
    source: str | None
    """Source of the label."""
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
    """From the requests in the history that watched it; None without any."""
    neuronpedia: str | None
    """URL of its page, where the catalogue has the SAE."""


async def build_feature_card(state: State, attached: AttachedSae, index: int) -> FeatureCard:
    """Raises MillmError."""
    tokenizer = state.model_or_raise().tokenizer
    described = await state.feature_cache.get(state.engine, attached.facts, index)
    label = state.labels.get(attached.facts.sae, index) or Label(index)
    observed = await _observed_statistics(state, attached.facts.sae, index)
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
            Neighbour(index=other, cosine=cosine, label=label_text(state.labels, facts.sae, other))
            for other, cosine in described.neighbours
        ),
        strengths=Strengths(
            half_norm=USUAL_NORM_SHARE * facts.residual_norm,
            half_max_act=label.max_act and USUAL_NORM_SHARE * label.max_act,
        ),
        observed=observed,
        neuronpedia=neuronpedia_link(facts.sae, label.index),
    )


async def _observed_statistics(state: State, sae: str, index: int) -> FeatureStatistics | None:
    filter = RequestFilter(sae=sae, feature=index)
    entries = tuple(state.monitor.history.newest(filter))
    return next(iter(await asyncio.to_thread(feature_statistics, entries, filter)), None)


def label_text(labels: Labels, sae: str, index: int) -> str | None:
    label = labels.get(sae, index)
    return label.label or None if label else None


def _promoted_tokens(logits: tuple[tuple[int, float], ...], tokenizer: Tokenizer) -> tuple[PromotedToken, ...]:
    return tuple(PromotedToken(id=id, token=tokenizer.token_text(id), logit=logit) for id, logit in logits)
