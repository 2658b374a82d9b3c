"""The output of a request: the engine's tokens become deltas of text, tool calls and activations.

A stream sends these deltas, a full response joins them. `start_generation` runs a request and records it.
"""

import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from fastapi import Request
from msgspec import UNSET, UnsetType

from millm.engine.client import EngineClient
from millm.engine.messages import Finished, Generate, PromptScores, Reading, SteeringReceipt, Token, TokenScore
from millm.generation.request import PLAIN_TEXT, GenerationRequest, OutputParserConfig
from millm.lifecycle.selection import Selection
from millm.monitoring.clients import identify_client
from millm.monitoring.recorder import RequestRecorder, combine_receipts
from millm.monitoring.watch import WatchPlan
from millm.protocol.response import Activation, Extension, FinishReason
from millm.text.detokenizer import Detokenizer, TokenOffsets
from millm.text.tokenizer import Tokenizer
from millm.text.tool_calls import ParsedCallDelta, ParsedDelta

NO_WATCHING = WatchPlan()


@dataclass(frozen=True)
class ChoiceEnd:
    """The end of a choice."""

    reason: FinishReason
    tokens: int
    """Tokens the engine sent for it."""
    receipt: SteeringReceipt | None
    cached_tokens: int
    """Tokens of its prompt that the engine did not have to compute."""


@dataclass(frozen=True)
class ToolCallPart:
    """Part of a tool call: the first part of a call has its id and name, later parts extend its arguments."""

    index: int
    """Number of the call within the choice."""
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class OutputDelta:
    """Part of one choice: final text, its tokens, activations and tool calls."""

    choice: int
    text: str = ""
    tokens: tuple[Token, ...] = ()
    offsets: tuple[int, ...] = ()
    """Character offset of each token in the choice."""
    activations: tuple[Activation, ...] = ()
    calls: tuple[ToolCallPart, ...] = ()
    reasoning: str = ""
    end: ChoiceEnd | None = None

    @property
    def has_content(self) -> bool:
        return bool(self.text or self.reasoning or self.calls or self.tokens or self.activations)


def join_outputs(outputs: list[OutputDelta]) -> OutputDelta:
    """Join all deltas of one choice, in order."""
    return OutputDelta(
        choice=outputs[0].choice,
        text="".join(output.text for output in outputs),
        reasoning="".join(output.reasoning for output in outputs),
        tokens=tuple(token for output in outputs for token in output.tokens),
        offsets=tuple(offset for output in outputs for offset in output.offsets),
        activations=tuple(activation for output in outputs for activation in output.activations),
        calls=tuple(call for output in outputs for call in output.calls),
        end=outputs[-1].end,
    )


async def collect_choices(outputs: AsyncGenerator[OutputDelta], choice_count: int) -> list[OutputDelta]:
    """The joined choices, in order."""
    parts: list[list[OutputDelta]] = [[] for _ in range(choice_count)]
    async with aclosing(outputs):
        async for output in outputs:
            parts[output.choice].append(output)
    return [join_outputs(deltas) for deltas in parts]


async def generate_output(
    engine: EngineClient,
    sequences: Sequence[Generate],
    detokenizers: Sequence[Detokenizer],
    tokenizer: Tokenizer,
    parser_config: OutputParserConfig = PLAIN_TEXT,
    echoes: Sequence[str] = (),
    watching: WatchPlan = NO_WATCHING,
    recorder: RequestRecorder | None = None,
) -> AsyncGenerator[OutputDelta]:
    """Yield the deltas of all choices; only the last delta of a choice has an `end`.

    `watching` selects the activations in the deltas; those of the monitor go into `recorder`. `echoes`: the text that
    each choice starts with. Raises MillmError when a sequence fails. Closing the generator cancels all sequences.
    """
    starts: Sequence[str | None] = echoes or [None] * len(sequences)
    assemblers = {
        sequence.id: _ChoiceAssembler(sequence.prompt, choice, detokenizer, tokenizer, parser_config, start)
        for choice, (sequence, detokenizer, start) in enumerate(zip(sequences, detokenizers, starts, strict=True))
    }
    for assembler in assemblers.values():
        assembler.watching, assembler.recorder = watching, recorder
    async with aclosing(engine.generate(*sequences)) as events:
        async for event in events:
            assembler = assemblers[event.id]
            if isinstance(event, PromptScores):
                assembler.prompt_scores += event.scores
                continue
            if assembler.echo is not None:
                yield assembler.echo_output()
            if isinstance(event, Finished):
                yield assembler.finish(event)
            elif not assembler.has_stopped():
                yield assembler.add_token(event)
                if assembler.has_stopped():
                    engine.cancel(event.id)  # `Finished` still follows, with the receipt


class _ChoiceAssembler:
    """Turns the tokens of one choice into deltas."""

    def __init__(
        self,
        prompt: Iterable[int],
        choice: int,
        detokenizer: Detokenizer,
        tokenizer: Tokenizer,
        parser_config: OutputParserConfig,
        echo: str | None,
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
        self.recorder: RequestRecorder | None = None
        self.echo = echo
        """The prompt's text, until it is sent."""
        self.prompt_scores: list[TokenScore] = []
        """Scores of all prompt tokens but the first."""
        self._pending_tokens: list[Token] = []
        """Tokens without final text: half a character, or a possible stop string or tool call."""

    def has_stopped(self) -> bool:
        """True after a stop string or the only tool call: later tokens are not part of the answer."""
        return self._detokenizer.stopped or self._parser.done

    def echo_output(self) -> OutputDelta:
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
        if self.recorder:
            self.recorder.record_token(self._choice)
        self._token_ids.append(token.token)
        self._pending_tokens.append(token)
        return self._output(self._parser.feed(self._detokenizer.push(token.token)), token.readings)

    def finish(self, event: Finished) -> OutputDelta:
        parsed = self._parser.feed(self._detokenizer.finish()).followed_by(self._parser.finish())
        has_called = self._has_called or bool(parsed.calls)
        reason: FinishReason = self._finish_after_calls if has_called else "stop"
        if event.reason == "length" and not self.has_stopped():
            reason = "length"
        return self._output(
            parsed, event.readings, ChoiceEnd(reason, self._token_count, event.receipt, event.cached_tokens)
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
        """Pending tokens whose text is final. Tokens of a stop string are never released."""
        if not parsed and (end is None or self.has_stopped()):
            return ()
        released, self._pending_tokens = tuple(self._pending_tokens), []
        return released

    def _activations(self, readings: Sequence[Reading]) -> tuple[Activation, ...]:
        if not readings:
            return ()
        if self.recorder:
            self.recorder.record_readings(self._choice, readings, self._text_at)
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
    """`candidates`: all samples of the first prompt, then of the second, … Returns the samples of each prompt with the
    highest mean log-probability, renumbered.
    """
    if choices_per_prompt == samples_per_prompt:
        return list(candidates)
    by_prompt = [
        candidates[first : first + samples_per_prompt] for first in range(0, len(candidates), samples_per_prompt)
    ]
    best = [
        output
        for samples in by_prompt
        for output in sorted(samples, key=_mean_logprob, reverse=True)[:choices_per_prompt]
    ]
    return [replace(output, choice=number) for number, output in enumerate(best)]


def _mean_logprob(output: OutputDelta) -> float:
    """Mean over generated tokens, without an echoed prompt."""
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
    """The `millm` object for finished choices."""
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
    """Fingerprint of the selected steering; the active steering may have changed since."""
    return selection.steering.fingerprint if selection.steering else None


OutputStream = AsyncGenerator[OutputDelta]


async def start_generation(engine: EngineClient, generation: GenerationRequest, request: Request) -> OutputStream:
    """The output as it is generated, recorded by the monitor. Raises InvalidRequest for a bad `X-Millm-Source`."""
    client, task = identify_client(request.headers, generation.last_prompt_text)
    return _recorded_output(engine, generation, request, client, task, await request.body())


async def _recorded_output(
    engine: EngineClient, generation: GenerationRequest, request: Request, client: str, task: str | None, body: bytes
) -> OutputStream:
    tokenizer, monitor = generation.selection.model.tokenizer, request.app.state.millm.monitor
    detokenizers = [
        Detokenizer(
            tokenizer,
            generation.stop,
            is_continuation=generation.continues_prompt,
            visible_ids=generation.parser_config.visible_tokens,
        )
        for _ in generation.sequences
    ]
    record = generation.new_record(request.scope["path"], client, task)
    prompts = {sequence.id: sequence.prompt for sequence in generation.sequences}
    with monitor.recording(
        request.scope, record, generation.watching, prompts, generation.decode_prompts, body
    ) as recorder:
        outputs = generate_output(
            engine,
            generation.sequences,
            detokenizers,
            tokenizer,
            generation.parser_config,
            generation.echoes,
            watching=generation.watching,
            recorder=recorder,
        )
        async with aclosing(outputs):
            async for output in outputs:
                if output.has_content:
                    recorder.record_text(output.choice, output.text)
                if end := output.end:
                    recorder.record_end(end.reason, end.tokens, end.cached_tokens, end.receipt)
                yield output


def response_extension(generation: GenerationRequest, choices: Sequence[OutputDelta], *, watching: bool) -> Extension:
    """The `millm` object of a response; `watching`: with the activations of the choices."""
    return build_extension(
        generation.selection,
        choices,
        watching=watching,
        sample_every=generation.sample_every,
        tools_omitted=generation.tools_omitted,
    )
