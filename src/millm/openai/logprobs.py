"""How likely the tokens were, in the two shapes that OpenAI's two endpoints have for it."""

import codecs
from collections.abc import Sequence

from millm.engine.messages import Token
from millm.openai.pieces import Piece
from millm.openai.schemas.answers import ChatLogprobs, ChosenLikelihood, CompletionLogprobs, Likelihood
from millm.text.tokenizer import Tokenizer

IMPOSSIBLE = -9999.0
"""Stands for a probability of zero, whose logarithm is not a JSON number."""

REPLACEMENT = "\ufffd"
"""Stands for bytes that are no character."""


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> ChatLogprobs:
    return ChatLogprobs(content=tuple(_chosen(tokenizer, token) for token in tokens))


def completion_logprobs(tokenizer: Tokenizer, piece: Piece) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=tuple(tokenizer.token_text(token.token) for token in piece.tokens),
        token_logprobs=tuple(_finite(token.logprob) for token in piece.tokens),
        top_logprobs=tuple(
            {tokenizer.token_text(id): _finite(logprob) for id, logprob in token.top} for token in piece.tokens
        ),
        text_offset=_offsets(tokenizer, piece),
    )


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


def _offsets(tokenizer: Tokenizer, piece: Piece) -> tuple[int, ...]:
    """Where each token's text begins in the choice, in characters; half a character begins where it will be whole."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets = []
    decoded = piece.offset
    for token in piece.tokens:
        half_before = bool(decoder.getstate()[0])
        text = decoder.decode(tokenizer.token_bytes(token.token))
        never_whole = half_before and text.startswith(REPLACEMENT)
        offsets.append(decoded + never_whole)
        decoded += len(text)
    return tuple(offsets)
