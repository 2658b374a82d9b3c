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
from millm.errors import EngineFailed


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


def choose(sequence: Sequence, logits: Tensor) -> Choice:
    """`logits [V]` of the sequence's last token. Raises EngineFailed if they are not finite."""
    state: SamplerState = sequence.sampler
    sampling = sequence.request.sampling
    logits = logits.float()
    token = _draw(_adjusted(logits, sampling, state.counts), sampling, state.generator)
    if not bool(torch.isfinite(logits[token])):
        raise EngineFailed("the model's logits are not finite numbers; a steering this strong can do that")
    state.counts[token] += 1
    return _reported(token, logits, sampling.logprobs)


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
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = _keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = _keep_top_p(logits, sampling.top_p)
    if sampling.min_p > 0:
        logits = _keep_min_p(logits, sampling.min_p)
    probabilities = torch.softmax(logits, dim=-1)
    if not bool(torch.isfinite(probabilities).all()):
        raise EngineFailed("the model's logits are not finite numbers; a steering this strong can do that")
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _keep_top_k(logits: Tensor, k: int) -> Tensor:
    return logits.masked_fill(logits < logits.topk(k).values[-1], -torch.inf)


def _keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The likeliest tokens whose probability reaches p together; at least one."""
    ordered, index = logits.sort(descending=True)
    before = torch.softmax(ordered, dim=-1).cumsum(dim=-1) - torch.softmax(ordered, dim=-1)
    dropped = before >= p
    dropped[0] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(0, index, dropped), -torch.inf)


def _keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Tokens at least p times as likely as the likeliest."""
    probabilities = torch.softmax(logits, dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.max(), -torch.inf)


def _reported(token: int, logits: Tensor, alternatives: int | None) -> Choice:
    if alternatives is None:
        return Choice(token)
    logprobs = torch.log_softmax(logits, dim=-1)
    top = logprobs.topk(min(alternatives, logprobs.shape[-1])) if alternatives else None
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return Choice(token, float(logprobs[token]), pairs)
