"""Texts as the token ids that the model reads, checked before the engine is asked anything about them."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from millm.engine.messages import FeaturesScanned, ScanFeatures
from millm.errors import ContextLengthExceeded, InvalidRequest, Timeout
from millm.loaded import AttachedSae, LoadedModel
from millm.state import State

Result = TypeVar("Result")
TokenIds = Sequence[int]


def encode_text(model: LoadedModel, text: str, name: str) -> list[int]:
    """As a completion would read it, or an encoder. Raises InvalidRequest or ContextLengthExceeded naming `name`."""
    most = model.facts.context_length
    if not model.tokenizer.can_fit(text, most):
        raise _context_length_error(name, most, f"more than {most}")
    read = model.tokenizer.encode if model.facts.generates else model.tokenizer.encode_with_special_tokens
    return check_token_ids(model, read(text), name)


def check_token_ids(model: LoadedModel, ids: list[int], name: str) -> list[int]:
    """Raises InvalidRequest or ContextLengthExceeded naming `name`."""
    most = model.facts.context_length
    if not ids:
        raise InvalidRequest(f"`{name}` holds nothing that this model reads.", param=name)
    if max(ids) >= model.facts.vocab_size:
        raise InvalidRequest(f"`{name}` takes token ids from 0 to {model.facts.vocab_size - 1}.", param=name)
    if len(ids) > most:
        raise _context_length_error(name, most, str(len(ids)))
    return ids


async def survey_texts(
    state: State, attached: AttachedSae, texts: Sequence[TokenIds], job_id: str
) -> list[FeaturesScanned]:
    """Which features fire on each text. Raises Timeout, or what the engine raises."""
    model, facts = state.model_or_raise(), attached.facts
    asked = [
        ScanFeatures(
            id=f"{job_id}-{place}",
            sae=facts.sae,
            tokens=tuple(ids),
            deadline_seconds=state.settings.request_timeout,
            attachment=facts.id,
            model=model.facts.id,
        )
        for place, ids in enumerate(texts)
    ]
    return await with_request_timeout(state, state.engine.scan_features(*asked))


async def with_request_timeout(state: State, work: Awaitable[Result]) -> Result:
    """The texts of a long job reach the engine one after the other, so its deadlines alone would not do.

    Raises Timeout, or what `work` raises.
    """
    seconds = state.settings.request_timeout
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise Timeout(f"this request took longer than {seconds:g} s; ask for less") from error


def _context_length_error(name: str, limit: int, found: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"This model's maximum context length is {limit} tokens, and `{name}` has {found}; shorten it.", param=name
    )
