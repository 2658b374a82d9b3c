"""`best_of`: of several answers to each prompt the likeliest are told, by the mean log-probability of their tokens."""

from collections.abc import Sequence
from dataclasses import replace

from millm.openai.pieces import Piece


def best(choices: Sequence[Piece], tries: int, told: int) -> list[Piece]:
    """`choices`: `tries` of the first prompt, as many of the second, … → `told` of each, numbered anew."""
    if told == tries:
        return list(choices)
    by_prompt = [choices[first : first + tries] for first in range(0, len(choices), tries)]
    kept = [piece for tried in by_prompt for piece in sorted(tried, key=_mean_logprob, reverse=True)[:told]]
    return [replace(piece, choice=number) for number, piece in enumerate(kept)]


def _mean_logprob(piece: Piece) -> float:
    """Of what was written: an echoed prompt is everybody's."""
    written = [token.logprob for token in piece.tokens if token.id and token.logprob is not None]
    return sum(written) / max(len(written), 1)
