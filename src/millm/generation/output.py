"""Choices as they are written: the engine's tokens become pieces of text with all that belongs to them.

The one path: a stream sends the pieces, a whole answer is the pieces joined.

`best_of`: of several answers to each prompt the likeliest are told, by the mean log-probability of their tokens.

An answer on its way out, told to the monitor: its first token, its ends, and what became of it.
"""

import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, replace

from fastapi import Request
from msgspec import UNSET, UnsetType

from millm.engine.client import EngineClient
from millm.engine.messages import Finished, Generate, PromptScores, Reading, SteeringReceipt, Token, TokenScore
from millm.generation.request import PLAIN_TEXT, GenerationRequest, OutputParserConfig
from millm.lifecycle.selection import Selection
from millm.monitoring.clients import identify_client
from millm.monitoring.recorder import Monitor, RequestRecorder, combine_receipts
from millm.monitoring.watch import WatchPlan
from millm.protocol.response import Activation, Extension, FinishReason
from millm.text.detokenizer import Detokenizer, TokenOffsets
from millm.text.tokenizer import Tokenizer
from millm.text.tool_calls import ParsedCallDelta, ParsedDelta

NO_WATCHING = WatchPlan()


@dataclass(frozen=True)
class ChoiceEnd:
    """How a choice ended."""

    reason: FinishReason
    tokens: int
    """Tokens the engine sent for it."""
    receipt: SteeringReceipt | None
    cached_tokens: int
    """Tokens of its prompt that the engine did not have to compute."""


@dataclass(frozen=True)
class ToolCallPart:
    """Some of a tool call: the first part of a call has its id and name, later ones add to its arguments."""

    index: int
    """Which of the choice's calls."""
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class OutputDelta:
    """Some of one choice: text that is final, the tokens it came from, what was watched meanwhile."""

    choice: int
    text: str = ""
    tokens: tuple[Token, ...] = ()
    offsets: tuple[int, ...] = ()
    """Where each token's text begins in the choice, in characters."""
    activations: tuple[Activation, ...] = ()
    calls: tuple[ToolCallPart, ...] = ()
    reasoning: str = ""
    end: ChoiceEnd | None = None

    @property
    def has_content(self) -> bool:
        """Apart from its end."""
        return bool(self.text or self.reasoning or self.calls or self.tokens or self.activations)


def join_outputs(outputs: list[OutputDelta]) -> OutputDelta:
    """All pieces of one choice, in order, as one."""
    return OutputDelta(
        choice=outputs[0].choice,
        text="".join(piece.text for piece in outputs),
        reasoning="".join(piece.reasoning for piece in outputs),
        tokens=tuple(token for piece in outputs for token in piece.tokens),
        offsets=tuple(offset for piece in outputs for offset in piece.offsets),
        activations=tuple(activation for piece in outputs for activation in piece.activations),
        calls=tuple(call for piece in outputs for call in piece.calls),
        end=outputs[-1].end,
    )


async def collect_choices(outputs: AsyncGenerator[OutputDelta], choice_count: int) -> list[OutputDelta]:
    """Each choice whole, in their order, when all have ended."""
    parts: list[list[OutputDelta]] = [[] for _ in range(choice_count)]
    async with aclosing(outputs):
        async for piece in outputs:
            parts[piece.choice].append(piece)
    return [join_outputs(some) for some in parts]


async def generate_output(
    engine: EngineClient,
    sequences: Sequence[Generate],
    detokenizers: Sequence[Detokenizer],
    tokenizer: Tokenizer,
    parser_config: OutputParserConfig = PLAIN_TEXT,
    echoes: Sequence[str] = (),
    watching: WatchPlan = NO_WATCHING,
    recording: RequestRecorder | None = None,
) -> AsyncGenerator[OutputDelta]:
    """The pieces of all choices as they come; only a choice's last has an `end`.

    What the request is told of what is watched is `watching`'s to say; the monitor's part goes into the `recording`.

    `echoes`: what each choice begins with, its prompt as somebody wrote it; none where answers begin with themselves.
    Raises MillmError when one of them fails. Closing it cancels the sequences at the next step.
    """
    choices = enumerate(zip(sequences, detokenizers, strict=True))
    writers = {
        sequence.id: _ChoiceAssembler(sequence.prompt, choice, text, tokenizer, parser_config)
        for choice, (sequence, text) in choices
    }
    for writer, echo in zip(writers.values(), echoes, strict=bool(echoes)):
        writer.echo = echo
    for writer in writers.values():
        writer.watching, writer.recording = watching, recording
    async with aclosing(engine.generate(*sequences)) as events:
        async for event in events:
            writer = writers[event.id]
            if isinstance(event, PromptScores):
                writer.prompt_scores += event.scores
                continue
            if writer.echo is not None:
                yield writer.echo_output()
            if isinstance(event, Finished):
                yield writer.finish(event)
            elif not writer.has_stopped():
                yield writer.add_token(event)
                if writer.has_stopped():
                    engine.cancel(event.id)  # its receipt still comes, with `Finished`


class _ChoiceAssembler:
    """What is known of one choice while it is written."""

    def __init__(
        self,
        prompt: Iterable[int],
        choice: int,
        detokenizer: Detokenizer,
        tokenizer: Tokenizer,
        parser_config: OutputParserConfig,
    ) -> None:
        self._choice = choice
        self._detokenizer = detokenizer
        self._parser = parser_config.make_parser()
        self._finish_after_calls = parser_config.finish_after_calls
        self._has_called = False
        self._tokenizer = tokenizer
        self._token_ids = list(prompt)
        self._offsets = TokenOffsets()
        self._token_count = 0
        self._prompt_length = len(self._token_ids)
        self.watching = NO_WATCHING
        self.recording: RequestRecorder | None = None
        self.echo: str | None = None
        """What is still to be told before the answer: its prompt."""
        self.prompt_scores: list[TokenScore] = []
        """Of the prompt's tokens, all but the first."""
        self._pending_tokens: list[Token] = []
        """Tokens without final text yet: half a character, or what may become a stop string or a call."""

    def has_stopped(self) -> bool:
        """A stop string or the only call has come; what follows is not part of the answer."""
        return self._detokenizer.stopped or self._parser.done

    def echo_output(self) -> OutputDelta:
        """The prompt itself, where its answer is to begin with it."""
        text, self.echo = self.echo or "", None
        scores = (
            [TokenScore(None), *self.prompt_scores] if self.prompt_scores else [TokenScore(None)] * len(self._token_ids)
        )
        tokens = tuple(
            Token(id="", token=id, logprob=score.logprob, top=score.top)
            for id, score in zip(self._token_ids, scores, strict=True)
        )
        offsets = tuple(self._offsets.next_offset(data) for data in self._tokenizer.prompt_token_bytes(self._token_ids))
        return OutputDelta(self._choice, text, tokens, offsets)

    def add_token(self, token: Token) -> OutputDelta:
        self._token_count += 1
        if self.recording:
            self.recording.record_token(self._choice)
        self._token_ids.append(token.token)
        self._pending_tokens.append(token)
        return self._output(self._parser.feed(self._detokenizer.push(token.token)), token.readings)

    def finish(self, event: Finished) -> OutputDelta:
        told = self._parser.feed(self._detokenizer.finish()).followed_by(self._parser.finish())
        has_called = self._has_called or bool(told.calls)
        reason: FinishReason = self._finish_after_calls if has_called else "stop"
        if event.reason == "length" and not self.has_stopped():
            reason = "length"
        return self._output(
            told, event.readings, ChoiceEnd(reason, self._token_count, event.receipt, event.cached_tokens)
        )

    def _output(self, parsed: ParsedDelta, readings: Sequence[Reading], end: ChoiceEnd | None = None) -> OutputDelta:
        self._has_called = self._has_called or bool(parsed.calls)
        tokens = self._release_tokens(parsed, end)
        return OutputDelta(
            choice=self._choice,
            text=parsed.text,
            reasoning=parsed.reasoning,
            tokens=tokens,
            offsets=tuple(self._offsets.next_offset(self._tokenizer.token_bytes(token.token)) for token in tokens),
            activations=self._activations(readings),
            calls=tuple(_tool_call_part(delta) for delta in parsed.calls),
            end=end,
        )

    def _release_tokens(self, parsed: ParsedDelta, end: ChoiceEnd | None) -> tuple[Token, ...]:
        """The held tokens, once something of them is out. Those that only made up the stop string never are."""
        if not parsed and (end is None or self.has_stopped()):
            return ()
        released, self._pending_tokens = tuple(self._pending_tokens), []
        return released

    def _activations(self, readings: Sequence[Reading]) -> tuple[Activation, ...]:
        if not readings:
            return ()
        if self.recording:
            self.recording.record_readings(self._choice, readings, self._text_at)
        return tuple(map(self._activation, self.watching.request_readings(readings, self._prompt_length)))

    def _text_at(self, position: int) -> str:
        return self._tokenizer.token_text(self._token_ids[position])

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


def _tool_call_part(delta: ParsedCallDelta) -> ToolCallPart:
    id = None if delta.name is None else f"call_{uuid.uuid4().hex[:24]}"
    return ToolCallPart(delta.index, id, delta.name, delta.arguments)


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


def build_extension(
    selection: Selection,
    choices: Sequence[OutputDelta],
    *,
    watching: bool,
    sample_every: int | UnsetType,
    tools_omitted: bool = False,
) -> Extension:
    """Of choices that have ended: positions are added up, ratios averaged over them."""
    receipt = combine_receipts([choice.end.receipt for choice in choices if choice.end and choice.end.receipt])
    steering = receipt.fingerprint if receipt else None
    return Extension(
        profile=selection.profile if steering == _expected_fingerprint(selection) else None,
        steering=steering,
        tokens_steered=receipt.tokens_steered if receipt else 0,
        delta_norm_ratio=receipt.delta_norm_ratio if receipt else 0.0,
        degraded=selection.degraded or (receipt and receipt.degraded) or UNSET,
        activations=tuple(activation for choice in choices for activation in choice.activations) if watching else UNSET,
        sample_every=sample_every,
        tools_omitted=tools_omitted or UNSET,
    )


def _expected_fingerprint(selection: Selection) -> str | None:
    """Fingerprint of what was selected; another one was applied where the active steering changed meanwhile."""
    return selection.steering.fingerprint if selection.steering else None


OutputStream = AsyncGenerator[OutputDelta]


async def start_generation(engine: EngineClient, generation: GenerationRequest, request: Request) -> OutputStream:
    """The output as it is generated, recorded by the monitor. Raises InvalidRequest for a bad `X-Millm-Source`."""
    client, task = identify_client(request.headers, generation.last_prompt_text)
    body = await request.body()
    monitor: Monitor = request.app.state.millm.monitor

    def start_recording() -> AbstractContextManager[RequestRecorder]:
        record = generation.new_record(request.scope["path"], client, task)
        prompts = {sequence.id: sequence.prompt for sequence in generation.sequences}
        return monitor.recording(request.scope, record, generation.watching, prompts, generation.decode_prompts, body)

    return _recorded_output(engine, generation, start_recording)


async def _recorded_output(
    engine: EngineClient,
    generation: GenerationRequest,
    start_recording: Callable[[], AbstractContextManager[RequestRecorder]],
) -> OutputStream:
    tokenizer = generation.selection.model.tokenizer
    detokenizers = [
        Detokenizer(
            tokenizer,
            generation.stop,
            is_continuation=generation.continues_prompt,
            visible_ids=generation.parser_config.visible_tokens,
        )
        for _ in generation.sequences
    ]
    with start_recording() as recorder:
        outputs = generate_output(
            engine,
            generation.sequences,
            detokenizers,
            tokenizer,
            generation.parser_config,
            generation.echoes,
            watching=generation.watching,
            recording=recorder,
        )
        async with aclosing(outputs):
            async for output in outputs:
                if output.has_content:
                    recorder.record_text(output.choice, output.text)
                if end := output.end:
                    recorder.record_end(end.reason, end.tokens, end.cached_tokens, end.receipt)
                yield output
