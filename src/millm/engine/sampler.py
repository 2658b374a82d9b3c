"""Logits → the next token, and what is reported of the choice.

Order: bias → OpenAI's penalties → (greedy: argmax) → temperature → top-k → top-p → min-p → draw.
Logprobs are the model's own: natural log, before any of these.
"""

import os
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from millm.engine.messages import Sampling
from millm.engine.sequence import Sequence
from millm.errors import NonFiniteOutput

_USUALLY_ENOUGH = 1024
"""Sorting a whole vocabulary takes a tenth of a small model's token; its likeliest thousand rarely do not suffice."""

_NOT_FINITE = "the model's logits are not finite numbers; a steering this strong can do that"


@dataclass(frozen=True)
class Choice:
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class SamplerState:
    """What sampling remembers of one sequence."""

    generator: torch.Generator
    counts: Counter[int] = field(default_factory=Counter)
    """How often each token was generated."""


def start(sampling: Sampling, device: torch.device) -> SamplerState:
    generator = torch.Generator(device=device)
    seed = sampling.seed if sampling.seed is not None else int.from_bytes(os.urandom(8))
    generator.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    return SamplerState(generator)


@dataclass(frozen=True)
class Likeliest:
    """The token of the largest logit, and whether that is a finite number."""

    token: int
    is_finite: bool


def likeliest(logits: Tensor) -> list[Likeliest]:
    """`logits [R, V]` → one per row, all in one pass over them."""
    largest, tokens = logits.max(dim=-1)
    return [Likeliest(*found) for found in zip(tokens.tolist(), torch.isfinite(largest).tolist(), strict=True)]


def choose(sequence: Sequence, logits: Tensor, best: Likeliest) -> Choice:
    """`logits [V]` of the sequence's last token, and the `likeliest` of them. Raises NonFiniteOutput."""
    state: SamplerState = sequence.sampler
    sampling = sequence.request.sampling
    if not best.is_finite:
        raise NonFiniteOutput(_NOT_FINITE)
    if _takes_likeliest(sampling):
        return Choice(best.token)
    logits = logits.float()
    token = _draw(_adjusted(logits, sampling, state.counts), sampling, state.generator)
    state.counts[token] += 1
    return _reported(token, logits, sampling.logprobs)


def _takes_likeliest(sampling: Sampling) -> bool:
    is_adjusted = sampling.logit_bias or sampling.presence_penalty or sampling.frequency_penalty
    return sampling.temperature == 0 and not is_adjusted and sampling.logprobs is None


def _adjusted(logits: Tensor, sampling: Sampling, counts: Counter[int]) -> Tensor:
    """Bias and penalties: logit − count·frequency − (count > 0)·presence (OpenAI's API reference)."""
    penalised = counts if sampling.presence_penalty or sampling.frequency_penalty else Counter[int]()
    if not sampling.logit_bias and not penalised:
        return logits
    logits = logits.clone()
    for token, bias in sampling.logit_bias:
        logits[token] += bias
    for token, count in penalised.items():
        logits[token] -= count * sampling.frequency_penalty + sampling.presence_penalty
    return logits


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax())
    weights = torch.softmax(logits / sampling.temperature, dim=-1)  # [V]
    if 0 < sampling.top_k < weights.shape[-1]:
        weights = _keep_top_k(weights, sampling.top_k)
    if sampling.top_p < 1:
        weights = _keep_top_p(weights, sampling.top_p)
    if sampling.min_p > 0:
        weights = _keep_at_least(weights, sampling.min_p * weights.max())
    if not bool(torch.isfinite(weights).all()):
        raise NonFiniteOutput(_NOT_FINITE)
    return int(torch.multinomial(weights, 1, generator=generator))


def _keep_top_k(weights: Tensor, k: int) -> Tensor:
    return _keep_at_least(weights, weights.topk(k).values[-1])


def _keep_top_p(weights: Tensor, p: float) -> Tensor:
    """The likeliest tokens whose share of the weight reaches p together; at least one, and ties with the last."""
    needed = p * weights.sum()
    ordered = weights.topk(min(_USUALLY_ENOUGH, len(weights))).values
    if ordered.sum() < needed:
        ordered = weights.sort(descending=True).values
    before = ordered.cumsum(dim=-1) - ordered
    kept = int((before < needed).sum())
    return _keep_at_least(weights, ordered[max(kept, 1) - 1])


def _keep_at_least(weights: Tensor, least: Tensor) -> Tensor:
    return weights.masked_fill(weights < least, 0.0)


def _reported(token: int, logits: Tensor, alternatives: int | None) -> Choice:
    if alternatives is None:
        return Choice(token)
    logprobs = torch.log_softmax(logits, dim=-1)
    top = logprobs.topk(min(alternatives, logprobs.shape[-1])) if alternatives else None
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return Choice(token, float(logprobs[token]), pairs)
