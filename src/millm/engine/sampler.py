"""Samples the next token from logits.

Order: bias → OpenAI's penalties → repetition penalty → grammar → (greedy: argmax) → temperature → top-k → top-p →
min-p → draw. Logprobs are natural logarithms of the model's probabilities, before any of these.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from millm.engine.failures import non_finite_logits
from millm.engine.messages import SamplingParams
from millm.engine.scheduler import Sequence
from millm.engine.structured_output import GrammarConstraint

_TOP_P_CANDIDATES = 1024
"""Sorting the vocabulary costs a tenth of a small model's time per token; these candidates nearly always suffice."""

_MIN_TEMPERATURE = 1e-5  # A lower temperature counts as 0, since division by it overflows (as in vLLM)


@dataclass(frozen=True)
class SampledToken:
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class SamplerState:
    """State of one sequence."""

    generator: torch.Generator
    constraint: GrammarConstraint | None = None
    counts: Counter[int] = field(default_factory=Counter)  # Number of times that each token was sampled

    @property
    def is_complete(self) -> bool:
        """True if the grammar allows no further token."""
        return self.constraint is not None and self.constraint.is_complete


def new_sampler_state(
    sampling: SamplingParams, device: torch.device, constraint: GrammarConstraint | None = None
) -> SamplerState:
    generator = torch.Generator(device=device)
    seed = sampling.seed if sampling.seed is not None else int.from_bytes(os.urandom(8))
    generator.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    return SamplerState(generator, constraint)


@dataclass(frozen=True)
class ArgmaxToken:
    """The token of the largest logit."""

    token: int
    is_finite: bool  # False if the logit is NaN or infinite


def argmax_tokens(logits: Tensor) -> list[ArgmaxToken]:
    """`logits [R, V]` → one per row, in one pass over the logits."""
    largest, tokens = logits.max(dim=-1)
    return [ArgmaxToken(*pair) for pair in zip(tokens.tolist(), torch.isfinite(largest).tolist(), strict=True)]


def sample_token(sequence: Sequence, logits: Tensor, argmax_token: ArgmaxToken) -> SampledToken:
    """`logits [V]` and argmax → next token. Raises NonFiniteOutput, or EngineFailed if the grammar allows none."""
    state: SamplerState = sequence.sampler_state
    sampling = sequence.request.sampling
    if not argmax_token.is_finite:
        raise non_finite_logits()
    if _is_plain_greedy(sequence):
        return SampledToken(argmax_token.token)
    logits = logits.float()
    token = _draw(_adjust_logits(sequence, logits), sampling, state.generator)
    state.counts[token] += 1
    if state.constraint:
        state.constraint.accept_token(token)
    return _with_logprobs(token, logits, sampling.logprobs)


def _is_plain_greedy(sequence: Sequence) -> bool:
    sampling = sequence.request.sampling
    is_penalised = sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1
    is_adjusted = sampling.logit_bias or is_penalised or sampling.min_tokens or sequence.request.grammar
    return sampling.temperature < _MIN_TEMPERATURE and not is_adjusted and sampling.logprobs is None


def _adjust_logits(sequence: Sequence, logits: Tensor) -> Tensor:
    """Penalties, bias, grammar and minimum length applied to `logits [V]`, which are not changed in place."""
    sampling, state = sequence.request.sampling, sequence.sampler_state
    logits = _apply_count_penalties(_apply_logit_bias(logits, sampling), sampling, state.counts)
    if sampling.repetition_penalty != 1:
        logits = _apply_repetition_penalty(
            logits, {*sequence.request.prompt, *state.counts}, sampling.repetition_penalty
        )
    if state.constraint:
        return logits.masked_fill(state.constraint.refused(logits.device), -torch.inf)
    if len(sequence.output_ids) < sampling.min_tokens and sequence.request.stop_ids:
        return logits.index_fill(0, _indices(sequence.request.stop_ids, logits), -torch.inf)
    return logits


def _apply_logit_bias(logits: Tensor, sampling: SamplingParams) -> Tensor:
    if not sampling.logit_bias:
        return logits
    tokens, biases = zip(*sampling.logit_bias, strict=True)
    return logits.index_add(0, _indices(tokens, logits), logits.new_tensor(biases))


def _apply_count_penalties(logits: Tensor, sampling: SamplingParams, counts: Counter[int]) -> Tensor:
    """logit − count·frequency − (count > 0)·presence (OpenAI's API reference)."""
    if not counts or not (sampling.presence_penalty or sampling.frequency_penalty):
        return logits
    penalties = [-count * sampling.frequency_penalty - sampling.presence_penalty for count in counts.values()]
    return logits.index_add(0, _indices(counts, logits), logits.new_tensor(penalties))


def _apply_repetition_penalty(logits: Tensor, token_ids: Iterable[int], penalty: float) -> Tensor:
    """Divides positive logits, multiplies negative ones (Keskar et al. 2019, as transformers computes it)."""
    indices = _indices(token_ids, logits)
    selected = logits[indices]
    return logits.index_copy(0, indices, torch.where(selected < 0, selected * penalty, selected / penalty))


def _indices(tokens: Iterable[int], logits: Tensor) -> Tensor:
    return torch.tensor([*tokens], dtype=torch.long, device=logits.device)


def _draw(logits: Tensor, sampling: SamplingParams, generator: torch.Generator) -> int:
    if sampling.temperature < _MIN_TEMPERATURE:
        return int(logits.argmax())
    weights = torch.softmax(logits / sampling.temperature, dim=-1)  # [V]
    if 0 < sampling.top_k < weights.shape[-1]:
        weights = _keep_at_least(weights, weights.topk(sampling.top_k).values[-1])
    if sampling.top_p < 1:
        weights = _keep_top_p(weights, sampling.top_p)
    if sampling.min_p > 0:
        weights = _keep_at_least(weights, sampling.min_p * weights.max())
    if not bool(torch.isfinite(weights).all()):
        raise non_finite_logits()
    return int(torch.multinomial(weights, 1, generator=generator))


def _keep_top_p(weights: Tensor, p: float) -> Tensor:
    """The most likely tokens whose weights sum to p of the total; at least one, and ties with the last."""
    needed = p * weights.sum()
    ordered = weights.topk(min(_TOP_P_CANDIDATES, len(weights))).values
    if ordered.sum() < needed:
        ordered = weights.sort(descending=True).values
    before = ordered.cumsum(dim=-1) - ordered
    count = int((before < needed).sum())
    return _keep_at_least(weights, ordered[max(count, 1) - 1])


def _keep_at_least(weights: Tensor, threshold: Tensor) -> Tensor:
    return weights.masked_fill(weights < threshold, 0.0)


def _with_logprobs(token: int, logits: Tensor, alternatives: int | None) -> SampledToken:
    if alternatives is None:
        return SampledToken(token)
    logprobs = torch.log_softmax(logits, dim=-1)
    top = logprobs.topk(min(alternatives, logprobs.shape[-1])) if alternatives else None
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return SampledToken(token, float(logprobs[token]), pairs)
