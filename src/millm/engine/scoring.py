"""How likely a prompt was: each of its tokens, given those before it."""

import torch
from torch import Tensor

from millm.engine.messages import PromptScores, TokenScore
from millm.engine.scheduler import ScheduledRow
from millm.errors import NonFiniteOutput

POSITIONS_PER_CHUNK = 64
"""Positions whose whole vocabulary is turned into probabilities at once: memory for these, not for a long prompt."""


def score_prompt(row: ScheduledRow, logits: Tensor) -> PromptScores | None:
    """`logits [T, V]` of the row's tokens → scores of their successors in the prompt, those not yet reported.

    Natural logarithms of the model's own probabilities. None where nothing is new. Raises NonFiniteOutput.
    """
    sequence = row.sequence
    prompt = sequence.request.prompt
    first = max(row.start, sequence.num_scored_tokens)
    end = min(row.start + len(row.tokens), len(prompt) - 1)
    if first >= end:
        return None
    found: list[TokenScore] = []
    for place in range(first, end, POSITIONS_PER_CHUNK):
        last = min(place + POSITIONS_PER_CHUNK, end)
        found += _score_positions(
            logits[place - row.start : last - row.start],
            prompt[place + 1 : last + 1],
            sequence.request.prompt_logprobs or 0,
        )
    sequence.num_scored_tokens = end
    return PromptScores(id=sequence.id, scores=tuple(found))


def _score_positions(logits: Tensor, successors: tuple[int, ...], alternatives: int) -> list[TokenScore]:
    """`logits [T, V]`, one successor each."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs.gather(1, torch.tensor(successors, device=logits.device)[:, None])[:, 0]  # [T]
    if bool(torch.isnan(chosen).any()):
        raise NonFiniteOutput("the model's logits are not finite numbers; a steering this strong can do that")
    if not alternatives:
        return [TokenScore(logprob) for logprob in chosen.tolist()]
    top = logprobs.topk(min(alternatives, logprobs.shape[-1]))  # [T, k]
    pairs = zip(chosen.tolist(), top.indices.tolist(), top.values.tolist(), strict=True)
    return [TokenScore(logprob, tuple(zip(ids, values, strict=True))) for logprob, ids, values in pairs]
