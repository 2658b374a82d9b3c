"""How likely the tokens were, in the two shapes that OpenAI's two endpoints have for it."""

from collections.abc import Sequence

from millm.engine.messages import Token
from millm.generation.output import OutputDelta
from millm.protocol.response import ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob
from millm.text.tokenizer import Tokenizer

MIN_LOGPROB = -9999.0
"""Stands for a probability of zero, whose logarithm is not a JSON number."""


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> ChatLogprobs:
    return ChatLogprobs(content=tuple(_token_logprob(tokenizer, token) for token in tokens))


def completion_logprobs(tokenizer: Tokenizer, output: OutputDelta) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=tuple(tokenizer.token_text(token.token) for token in output.tokens),
        token_logprobs=tuple(None if token.logprob is None else _finite(token.logprob) for token in output.tokens),
        top_logprobs=tuple(_top_logprobs_by_text(tokenizer, token) for token in output.tokens),
        text_offset=output.offsets,
    )


def _top_logprobs_by_text(tokenizer: Tokenizer, token: Token) -> dict[str, float] | None:
    """By their texts, the token itself among them; of two with one text the likelier. None before any text."""
    if token.logprob is None:
        return None
    chosen = [(token.token, token.logprob)] if token.top else []
    found: dict[str, float] = {}
    for id, logprob in (*token.top, *chosen):
        found.setdefault(tokenizer.token_text(id), _finite(logprob))
    return found


def _token_logprob(tokenizer: Tokenizer, token: Token) -> TokenLogprob:
    return TokenLogprob(
        token=tokenizer.token_text(token.token),
        logprob=_finite(token.logprob),
        bytes=tuple(tokenizer.token_bytes(token.token)),
        top_logprobs=tuple(_top_logprob(tokenizer, id, logprob) for id, logprob in token.top),
    )


def _top_logprob(tokenizer: Tokenizer, id: int, logprob: float) -> TopLogprob:
    return TopLogprob(token=tokenizer.token_text(id), logprob=_finite(logprob), bytes=tuple(tokenizer.token_bytes(id)))


def _finite(logprob: float | None) -> float:
    return max(logprob, MIN_LOGPROB) if logprob is not None else MIN_LOGPROB
