"""Output deltas of a scripted engine: text, tokens, stops, activations and receipts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from millm.engine.messages import Finished, Generate, Reading, SteeringReceipt, Token
from millm.generation.output import OutputDelta, generate_output, join_outputs
from millm.monitoring.watch import merge_watches
from millm.sae.steering import Watch
from millm.text.detokenizer import Detokenizer
from millm.text.tokenizer import Tokenizer

RECEIPT = SteeringReceipt(fingerprint="f", tokens_steered=3, delta_norm_ratio=0.5)


class ScriptedEngine:
    """Yields the given tokens like the engine process; a cancelled sequence still gets its `Finished`."""

    def __init__(self, tokens: Sequence[int], reason: str = "length", readings: Sequence[Reading] = ()) -> None:
        self.tokens, self.reason, self.readings = tokens, reason, tuple(readings)
        self.cancelled: list[str] = []

    async def generate(self, *requests: Generate) -> AsyncIterator[Token | Finished]:
        for token in self.tokens:
            for request in requests:
                if request.id not in self.cancelled:
                    yield Token(id=request.id, token=token, logprob=-1.0, readings=self.readings)
        for request in requests:
            reason = "cancelled" if request.id in self.cancelled else self.reason
            yield Finished(id=request.id, reason=reason, receipt=RECEIPT, cached_tokens=4)

    def cancel(self, *ids: str) -> None:
        self.cancelled += ids


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_folder(tiny_model)


WATCHING = merge_watches([Watch(sae="s", features=(1,), top_k=1, sample_every=1, tokens="all")], [])


def written(tokenizer: Tokenizer, engine: ScriptedEngine, stop: tuple[str, ...] = ()) -> list[OutputDelta]:
    async def collect() -> list[OutputDelta]:
        sequence = Generate(id="s", prompt=(5, 6), max_tokens=99)
        text = Detokenizer(tokenizer, stop)
        return [piece async for piece in generate_output(engine, [sequence], [text], tokenizer, watching=WATCHING)]  # type: ignore[arg-type]

    return asyncio.run(collect())


def test_interleaved_choices_are_separated(tokenizer) -> None:
    """Every choice has its own text, stop strings and cached tokens."""
    tokens = split(tokenizer, "one two", " three")
    engine = ScriptedEngine(tokens)

    async def collect() -> list[OutputDelta]:
        sequences = [Generate(id=name, prompt=(5,), max_tokens=99) for name in ("a", "b")]
        texts = [Detokenizer(tokenizer, ()), Detokenizer(tokenizer, ("two",))]
        return [piece async for piece in generate_output(engine, sequences, texts, tokenizer)]  # type: ignore[arg-type]

    pieces = asyncio.run(collect())
    full, cut = (join_outputs([piece for piece in pieces if piece.choice == choice]) for choice in range(2))
    assert (full.text, cut.text) == ("one two three", "one ")
    assert engine.cancelled == ["b"]
    assert full.end.cached_tokens == cut.end.cached_tokens == 4


def split(tokenizer: Tokenizer, *words: str) -> list[int]:
    """Token ids that decode to `words`, with a border between tokens at least where the words meet."""
    return [token for word in words for token in tokenizer.encode(word) if token not in tokenizer.special_ids]


@given(tokens=st.lists(st.integers(0, 399), max_size=40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_joined_deltas_equal_decoded_tokens(tokenizer, tokens) -> None:
    pieces = written(tokenizer, ScriptedEngine(tokens))
    full = join_outputs(pieces)
    assert full.text == tokenizer.decode(tokens)
    assert [token.token for token in full.tokens] == tokens
    assert [piece.end is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert full.end.tokens == len(tokens)
    assert len(full.offsets) == len(tokens)
    assert list(full.offsets) == sorted(full.offsets)
    for offset, token in zip(full.offsets, tokens, strict=True):
        spelled = tokenizer.decode([token])
        assert "\ufffd" in spelled or full.text.startswith(spelled, offset)


@given(text=st.text("abEND é", min_size=1, max_size=20), cut=st.integers(0, 19), size=st.integers(1, 5))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stop_string_ends_text_and_is_never_sent(tokenizer, text, cut, size) -> None:
    stop = text[cut : cut + size] or "?"
    engine = ScriptedEngine(split(tokenizer, *text), reason="length")
    pieces = written(tokenizer, engine, (stop,))
    full = join_outputs(pieces)
    before, found, _ = text.partition(stop)
    assert full.text == before
    assert tokenizer.decode(token.token for token in full.tokens).startswith(before)
    if found:
        assert full.end.reason == "stop"
        assert full.end.receipt == RECEIPT
    else:
        assert full.end.reason == "length"
        assert not engine.cancelled


def test_stop_cancels_sequence_and_later_tokens_are_not_counted(tokenizer) -> None:
    tokens = split(tokenizer, "one ", "S", "T", "O", "P", " two", " three")
    engine = ScriptedEngine(tokens)
    full = join_outputs(written(tokenizer, engine, ("STOP",)))
    assert full.text == "one "
    assert engine.cancelled == ["s"]
    assert full.end.tokens == len(split(tokenizer, "one ", "S", "T", "O", "P"))
    assert [token.token for token in full.tokens] == split(tokenizer, "one ")


def test_partial_characters_wait_for_completion(tokenizer) -> None:
    tokens = split(tokenizer, "🙂")
    assert len(tokens) == 4
    pieces = [piece for piece in written(tokenizer, ScriptedEngine(tokens)) if piece.text]
    assert [(piece.text, len(piece.tokens)) for piece in pieces] == [("🙂", 4)]


def test_activations_have_their_token_text(tokenizer) -> None:
    tokens = split(tokenizer, "a", "b")
    readings = [Reading("s", 0, (1.0,)), Reading("s", 1, (2.0,), ((7, 3.0),))]
    first, *_ = written(tokenizer, ScriptedEngine(tokens, readings=readings))
    assert [(a.choice, a.sae, a.position, a.values, a.top) for a in first.activations] == [
        (0, "s", 0, (1.0,), UNSET),
        (0, "s", 1, (2.0,), ((7, 3.0),)),
    ]
    assert [a.token for a in first.activations] == [tokenizer.token_text(5), tokenizer.token_text(6)]
