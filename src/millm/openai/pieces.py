"""Choices as they are written: the engine's tokens become pieces of text with all that belongs to them.

The one path: a stream sends the pieces, a whole answer is the pieces joined.
"""

import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from msgspec import UNSET

from millm.engine.client import EngineClient
from millm.engine.messages import Finished, Generate, Reading, Receipt, Score, Scores, Token
from millm.monitor.recording import Recording
from millm.monitor.watching import Watching
from millm.openai.reading import VERBATIM, AnswerReading
from millm.openai.schemas.answers import Activation, FinishReason
from millm.text.detokenizer import Detokenizer
from millm.text.offsets import Offsets
from millm.text.tokenizer import Tokenizer
from millm.text.told import CallDelta, Told

NOTHING = Watching()


@dataclass(frozen=True)
class End:
    """How a choice ended."""

    reason: FinishReason
    tokens: int
    """Tokens the engine sent for it."""
    receipt: Receipt | None
    cached_tokens: int
    """Tokens of its prompt that the engine did not have to compute."""


@dataclass(frozen=True)
class CallPart:
    """Some of a tool call: the first part of a call has its id and name, later ones add to its arguments."""

    index: int
    """Which of the choice's calls."""
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class Piece:
    """Some of one choice: text that is final, the tokens it came from, what was watched meanwhile."""

    choice: int
    text: str = ""
    tokens: tuple[Token, ...] = ()
    offsets: tuple[int, ...] = ()
    """Where each token's text begins in the choice, in characters."""
    activations: tuple[Activation, ...] = ()
    calls: tuple[CallPart, ...] = ()
    reasoning: str = ""
    end: End | None = None

    @property
    def says_something(self) -> bool:
        """Apart from its end."""
        return bool(self.text or self.reasoning or self.calls or self.tokens or self.activations)


def join(pieces: list[Piece]) -> Piece:
    """All pieces of one choice, in order, as one."""
    return Piece(
        choice=pieces[0].choice,
        text="".join(piece.text for piece in pieces),
        reasoning="".join(piece.reasoning for piece in pieces),
        tokens=tuple(token for piece in pieces for token in piece.tokens),
        offsets=tuple(offset for piece in pieces for offset in piece.offsets),
        activations=tuple(activation for piece in pieces for activation in piece.activations),
        calls=tuple(call for piece in pieces for call in piece.calls),
        end=pieces[-1].end,
    )


async def joined(pieces: AsyncGenerator[Piece], choices: int) -> list[Piece]:
    """Each choice whole, in their order, when all have ended."""
    parts: list[list[Piece]] = [[] for _ in range(choices)]
    async with aclosing(pieces):
        async for piece in pieces:
            parts[piece.choice].append(piece)
    return [join(some) for some in parts]


async def write(
    engine: EngineClient,
    sequences: Sequence[Generate],
    texts: Sequence[Detokenizer],
    tokenizer: Tokenizer,
    reading: AnswerReading = VERBATIM,
    echoes: Sequence[str] = (),
    watching: Watching = NOTHING,
    recording: Recording | None = None,
) -> AsyncGenerator[Piece]:
    """The pieces of all choices as they come; only a choice's last has an `end`.

    What the request is told of what is watched is `watching`'s to say; the monitor's part goes into the `recording`.

    `echoes`: what each choice begins with, its prompt as somebody wrote it; none where answers begin with themselves.
    Raises MillmError when one of them fails. Closing it cancels the sequences at the next step.
    """
    choices = enumerate(zip(sequences, texts, strict=True))
    writers = {
        sequence.id: _Writer(sequence.prompt, choice, text, tokenizer, reading) for choice, (sequence, text) in choices
    }
    for writer, echo in zip(writers.values(), echoes, strict=bool(echoes)):
        writer.echo = echo
    for writer in writers.values():
        writer.watching, writer.recording = watching, recording
    async with aclosing(engine.generate(*sequences)) as events:
        async for event in events:
            writer = writers[event.id]
            if isinstance(event, Scores):
                writer.scores += event.scores
                continue
            if writer.echo is not None:
                yield writer.opening()
            if isinstance(event, Finished):
                yield writer.finished(event)
            elif not writer.has_stopped():
                yield writer.token(event)
                if writer.has_stopped():
                    engine.cancel(event.id)  # its receipt still comes, with `Finished`


class _Writer:
    """What is known of one choice while it is written."""

    def __init__(
        self, prompt: Iterable[int], choice: int, text: Detokenizer, tokenizer: Tokenizer, reading: AnswerReading
    ) -> None:
        self._choice = choice
        self._text = text
        self._reader = reading.reader()
        self._after_calls = reading.after_calls
        self._has_called = False
        self._tokenizer = tokenizer
        self._ids = list(prompt)
        self._offsets = Offsets()
        self._tokens = 0
        self._prompt = len(self._ids)
        self.watching = NOTHING
        self.recording: Recording | None = None
        self.echo: str | None = None
        """What is still to be told before the answer: its prompt."""
        self.scores: list[Score] = []
        """Of the prompt's tokens, all but the first."""
        self._held: list[Token] = []
        """Tokens without final text yet: half a character, or what may become a stop string or a call."""

    def has_stopped(self) -> bool:
        """A stop string or the only call has come; what follows is not part of the answer."""
        return self._text.stopped or self._reader.done

    def opening(self) -> Piece:
        """The prompt itself, where its answer is to begin with it."""
        text, self.echo = self.echo or "", None
        scores = [Score(None), *self.scores] if self.scores else [Score(None)] * len(self._ids)
        tokens = tuple(
            Token(id="", token=id, logprob=score.logprob, top=score.top)
            for id, score in zip(self._ids, scores, strict=True)
        )
        offsets = tuple(self._offsets.place(data) for data in self._tokenizer.spelled(self._ids))
        return Piece(self._choice, text, tokens, offsets)

    def token(self, token: Token) -> Piece:
        self._tokens += 1
        if self.recording:
            self.recording.token(self._choice)
        self._ids.append(token.token)
        self._held.append(token)
        return self._piece(self._reader.feed(self._text.push(token.token)), token.readings)

    def finished(self, event: Finished) -> Piece:
        told = self._reader.feed(self._text.finish()).followed_by(self._reader.finish())
        has_called = self._has_called or bool(told.calls)
        reason: FinishReason = self._after_calls if has_called else "stop"
        if event.reason == "length" and not self.has_stopped():
            reason = "length"
        return self._piece(told, event.readings, End(reason, self._tokens, event.receipt, event.cached_tokens))

    def _piece(self, told: Told, readings: Sequence[Reading], end: End | None = None) -> Piece:
        self._has_called = self._has_called or bool(told.calls)
        tokens = self._released(told, end)
        return Piece(
            choice=self._choice,
            text=told.text,
            reasoning=told.reasoning,
            tokens=tokens,
            offsets=tuple(self._offsets.place(self._tokenizer.token_bytes(token.token)) for token in tokens),
            activations=self._activations(readings),
            calls=tuple(_part(delta) for delta in told.calls),
            end=end,
        )

    def _released(self, told: Told, end: End | None) -> tuple[Token, ...]:
        """The held tokens, once something of them is out. Those that only made up the stop string never are."""
        if not told and (end is None or self.has_stopped()):
            return ()
        released, self._held = tuple(self._held), []
        return released

    def _activations(self, readings: Sequence[Reading]) -> tuple[Activation, ...]:
        if not readings:
            return ()
        if self.recording:
            self.recording.saw(self._choice, readings, self._text_at)
        return tuple(map(self._activation, self.watching.of_request(readings, self._prompt)))

    def _text_at(self, position: int) -> str:
        return self._tokenizer.token_text(self._ids[position])

    def _activation(self, reading: Reading) -> Activation:
        return Activation(
            choice=self._choice,
            sae=reading.sae,
            position=reading.position,
            token=self._text_at(reading.position),
            values=reading.values,
            top=reading.top or UNSET,
            after=reading.after or UNSET,
            top_after=reading.top_after or UNSET,
        )


def _part(delta: CallDelta) -> CallPart:
    id = None if delta.name is None else f"call_{uuid.uuid4().hex[:24]}"
    return CallPart(delta.index, id, delta.name, delta.arguments)
