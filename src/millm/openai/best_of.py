"""`best_of`: of several answers to each prompt the likeliest are told, by the mean log-probability of their tokens."""

from collections.abc import Sequence
from dataclasses import replace

from millm.openai.pieces import OutputDelta


def pick_best(candidates: Sequence[OutputDelta], samples_per_prompt: int, choices_per_prompt: int) -> list[OutputDelta]:
    """`choices`: `tries` of the first prompt, as many of the second, … → `told` of each, numbered anew."""
    if choices_per_prompt == samples_per_prompt:
        return list(candidates)
    by_prompt = [
        candidates[first : first + samples_per_prompt] for first in range(0, len(candidates), samples_per_prompt)
    ]
    kept = [
        piece for tried in by_prompt for piece in sorted(tried, key=_mean_logprob, reverse=True)[:choices_per_prompt]
    ]
    return [replace(piece, choice=number) for number, piece in enumerate(kept)]


def _mean_logprob(output: OutputDelta) -> float:
    """Of what was written: an echoed prompt is everybody's."""
    written = [token.logprob for token in output.tokens if token.id and token.logprob is not None]
    return sum(written) / max(len(written), 1)
