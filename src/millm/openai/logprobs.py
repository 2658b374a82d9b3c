"""How likely the tokens were, in the two shapes that OpenAI's two endpoints have for it."""

from collections.abc import Sequence

from millm.engine.messages import Token
from millm.openai.pieces import Piece
from millm.openai.schemas.answers import ChatLogprobs, ChosenLikelihood, CompletionLogprobs, Likelihood
from millm.text.tokenizer import Tokenizer

IMPOSSIBLE = -9999.0
"""Stands for a probability of zero, whose logarithm is not a JSON number."""


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> ChatLogprobs:
    return ChatLogprobs(content=tuple(_chosen(tokenizer, token) for token in tokens))


def completion_logprobs(tokenizer: Tokenizer, piece: Piece) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=tuple(tokenizer.token_text(token.token) for token in piece.tokens),
        token_logprobs=tuple(None if token.logprob is None else _finite(token.logprob) for token in piece.tokens),
        top_logprobs=tuple(_likeliest(tokenizer, token) for token in piece.tokens),
        text_offset=piece.offsets,
    )


def _likeliest(tokenizer: Tokenizer, token: Token) -> dict[str, float] | None:
    """By their texts, the token itself among them; of two with one text the likelier. None before any text."""
    if token.logprob is None:
        return None
    chosen = [(token.token, token.logprob)] if token.top else []
    found: dict[str, float] = {}
    for id, logprob in (*token.top, *chosen):
        found.setdefault(tokenizer.token_text(id), _finite(logprob))
    return found


def _chosen(tokenizer: Tokenizer, token: Token) -> ChosenLikelihood:
    return ChosenLikelihood(
        token=tokenizer.token_text(token.token),
        logprob=_finite(token.logprob),
        bytes=tuple(tokenizer.token_bytes(token.token)),
        top_logprobs=tuple(_likelihood(tokenizer, id, logprob) for id, logprob in token.top),
    )


def _likelihood(tokenizer: Tokenizer, id: int, logprob: float) -> Likelihood:
    return Likelihood(token=tokenizer.token_text(id), logprob=_finite(logprob), bytes=tuple(tokenizer.token_bytes(id)))


def _finite(logprob: float | None) -> float:
    return max(logprob, IMPOSSIBLE) if logprob is not None else IMPOSSIBLE
