"""Executes scheduler steps on one loaded model. A failure ends only the sequences that it concerns."""

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine import sampler, scoring
from millm.engine.attached_saes import AttachedSaes
from millm.engine.failures import failure_event, is_out_of_memory
from millm.engine.fault_injection import FaultInjector
from millm.engine.messages import (
    Embed,
    EngineEvent,
    Finished,
    Reading,
    ScanFeatures,
    ScoreAnswer,
    SequenceEndReason,
    SteeringReceipt,
    Token,
)
from millm.engine.model_runner import Runner
from millm.engine.out_of_memory import OutOfMemoryHandler
from millm.engine.scheduler import ForwardPass, ScheduledRow, Scheduler, Sequence
from millm.engine.structured_output import GrammarVocabulary
from millm.engine.watchdog import EXIT_CODE
from millm.errors import ContextLengthExceeded, ModelCannotGenerate, ModelNotLoaded, Timeout
from millm.sae.steering import Steering

log = structlog.get_logger()
SendEvents = Callable[[list[EngineEvent]], None]


@dataclass
class ModelExecutor:
    """Without a model, every sequence fails with ModelNotLoaded."""

    fault_injector: FaultInjector
    send_events: SendEvents
    model: PreTrainedModel | None = None
    runner: Runner | None = None  # None: no model, or an encoder, which only embeds
    attached_saes: AttachedSaes = field(default_factory=AttachedSaes)
    vocabulary: GrammarVocabulary = field(default_factory=lambda: GrammarVocabulary(Path(), 0, (), ()))
    scheduler: Scheduler = field(default_factory=lambda: Scheduler(capacity=1))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    max_text_tokens: int = sys.maxsize
    load_id: str = ""  # Id of the `LoadModel`

    def step(self) -> None:
        events: list[EngineEvent] = [self._finish(sequence, "cancelled") for sequence in self.scheduler.pop_cancelled()]
        events += self._time_out(self.scheduler.pop_expired(time.monotonic()))
        for sequence in self.scheduler.admit(self._fits):
            events += self._run_guarded([sequence], partial(self._start, sequence))
        for rows in self.scheduler.plan(partial(self._try_allocate, events)):
            if self.scheduler.is_running(rows):
                events += self._run_pass(rows)
        text = self.scheduler.next_text(self.attached_saes.has_room)  # one per step, not to delay decoding sequences
        if text:
            events += self._run_guarded([text], partial(self._run_text, text))
        if events:
            self.send_events(events)
        self.remove_unused_hooks()

    def set_active_steering(self, steering: Steering | None) -> None:
        """Steer sequences with `follows_active` by it, from their next token."""
        for sequence in self.scheduler.all_sequences:
            if sequence.request.follows_active and sequence.steering != steering:
                self.send_events(self._run_guarded([sequence], partial(self._change_steering, sequence, steering)))

    def _change_steering(self, sequence: Sequence, steering: Steering | None) -> list[EngineEvent]:
        assert self.runner is not None
        self.attached_saes.change_steering(sequence, steering)
        self.runner.on_steering_change(sequence)
        return []

    def on_attachments_changed(self) -> None:
        """Drop cached prefixes: the new set of SAEs computes other keys and values."""
        if self.runner is not None:
            for sequence in self.attached_saes.using_detached(self.scheduler.all_sequences):
                self.runner.on_steering_change(sequence)
            self.runner.invalidate_cache()
        self.remove_unused_hooks()

    def remove_unused_hooks(self) -> None:
        if self.attached_saes.remove_unused_hooks() and self.runner is not None:
            self.runner.invalidate_cache()

    def stop(self, reason: str) -> None:
        """End every sequence with ModelNotLoaded and remove the hooks."""
        for sequence in self.scheduler.pop_all():
            self._close(sequence)
            self.send_events([failure_event(sequence.id, ModelNotLoaded(reason))])
        self.attached_saes.remove_all()

    def _run_text(self, text: Sequence) -> list[EngineEvent]:
        self._check_model(text)
        self.fault_injector.current_point = "prefill"
        result = self._text_result(text)
        self.scheduler.remove(text)
        self._close(text)
        return [result]

    def _text_result(self, text: Sequence) -> EngineEvent:
        assert self.model is not None
        assert text.text_command is not None
        if text.length > self.max_text_tokens:
            raise ContextLengthExceeded(f"this text has {text.length} tokens, the model takes {self.max_text_tokens}")
        match text.text_command:
            case Embed() as command:
                return scoring.embed(self.model, self.attached_saes, text, command)
            case ScanFeatures() as command:
                return scoring.scan_features(self.model, self.attached_saes, command)
            case ScoreAnswer() as command:
                self._check_generates()
                return scoring.score_answer(self.model, self.attached_saes, text, command)

    def _time_out(self, sequences: Iterable[Sequence]) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for sequence in sequences:
            self._close(sequence)
            message = f"this request took longer than {sequence.request.deadline_seconds:g} s; ask for less"
            events.append(failure_event(sequence.id, Timeout(message)))
        return events

    def _fits(self, sequence: Sequence) -> bool:
        return self.runner is None or (self.attached_saes.has_room(sequence) and self.runner.fits(sequence))

    def _start(self, sequence: Sequence) -> list[EngineEvent]:
        self._check_model(sequence)
        self._check_generates()
        if sequence.hook_state is None:
            self.attached_saes.start(sequence)
        if sequence.sampler_state is None:
            constraint = self.vocabulary.new_constraint(sequence.request.grammar)
            sequence.sampler_state = sampler.new_sampler_state(sequence.request.sampling, self.device, constraint)
        return []

    def _check_model(self, sequence: Sequence) -> None:
        if self.model is None:
            raise ModelNotLoaded("no model is loaded")
        if sequence.request.model not in ("", self.load_id):
            raise ModelNotLoaded("the model was replaced while this request was read; ask again")

    def _check_generates(self) -> None:
        if self.runner is None:
            raise ModelCannotGenerate("this model only embeds: it has no head that writes tokens")

    def _try_allocate(self, events: list[EngineEvent], sequence: Sequence) -> bool:
        """Allocate cache for a sequence's prompt. False if the sequence failed, which is added to `events`."""
        if sequence.cache is not None:
            return True
        failures = self._run_guarded([sequence], partial(self._allocate_row, sequence))
        events += failures
        return not failures

    def _allocate_row(self, sequence: Sequence) -> list[EngineEvent]:
        assert self.runner is not None
        needs_prompt = any(watch.tokens != "generated" for watch in sequence.watch) or sequence.needs_prompt_scores
        prefix_state = self.runner.allocate(sequence, reuse=not needs_prompt)
        self.attached_saes.inherit_prefix(sequence, prefix_state, sequence.num_computed_tokens)
        self.runner.store_prefix_state(sequence, sequence.hook_state)
        if not sequence.output_ids:
            sequence.num_cached_tokens = max(sequence.num_cached_tokens, sequence.num_computed_tokens)
        return []

    def _run_guarded(self, sequences: list[Sequence], action: Callable[[], list[EngineEvent]]) -> list[EngineEvent]:
        """Turn what `action` raises into the failure of `sequences`."""
        try:
            return action()
        except Exception as error:  # noqa: BLE001  the loop outlives any step
            return self._fail(sequences, error)

    def _fail(self, sequences: list[Sequence], error: Exception) -> list[EngineEvent]:
        """End `sequences` with `error`; a lost device also ends the process."""
        for sequence in sequences:
            self.scheduler.remove(sequence)
            self._close(sequence)
        events: list[EngineEvent] = [failure_event(sequence.id, error) for sequence in sequences]
        if isinstance(error, torch.AcceleratorError):
            log.error("engine.device_lost", exc_info=error)
            self.send_events(events)
            os._exit(EXIT_CODE)
        return events

    def _run_pass(self, rows: ForwardPass) -> list[EngineEvent]:
        assert self.runner is not None
        rows = self.runner.sort_rows(rows)
        try:
            logits, readings, best = self._forward(rows)
        except Exception as error:  # noqa: BLE001  the loop outlives any pass
            return self._handle_pass_error(rows, error)
        events: list[EngineEvent] = []
        for index, row in enumerate(rows):
            row.sequence.readings += readings[index]
            events += self._run_guarded([row.sequence], partial(self._handle_logits, row, logits[index], best[index]))
        return events

    def _forward(self, rows: ForwardPass) -> tuple[Tensor, list[tuple[Reading, ...]], list[sampler.ArgmaxToken]]:
        assert self.runner is not None
        self.fault_injector.current_point = "prefill" if rows[0].sequence.is_prefilling else "decode"
        self.attached_saes.prepare(rows)
        logits = self.runner.run(rows)  # [rows, 1 or T, V]
        return logits, self.attached_saes.collect(rows), sampler.argmax_tokens(logits[:, -1])

    def _handle_pass_error(self, rows: ForwardPass, error: Exception) -> list[EngineEvent]:
        """Out of memory: degrade, and the rows are planned again. Any other error fails them."""
        assert self.runner is not None
        assert self.model is not None
        sequences = [row.sequence for row in rows]
        can_retry = not any(row.is_computed for row in rows)
        for sequence in sequences:
            self.runner.recover(sequence)
        if can_retry and is_out_of_memory(error):
            events = OutOfMemoryHandler(self.attached_saes, self.runner, self.scheduler, self.model.device).degrade()
            if events is not None:
                return events
        return self._fail(sequences, error)

    def _handle_logits(self, row: ScheduledRow, logits: Tensor, best: sampler.ArgmaxToken) -> list[EngineEvent]:
        """`logits [1 or T, V]` → prompt scores, the next token, the end."""
        scores = scoring.score_prompt(row, logits) if row.is_scored else None
        events: list[EngineEvent] = [scores] if scores else []
        if not row.is_last_chunk:
            return events
        if row.sequence.is_at_limit:
            return [*events, self._remove_and_finish(row.sequence, "length")]
        return [*events, *self._sample_token(row.sequence, logits[-1], best)]

    def _sample_token(self, sequence: Sequence, logits: Tensor, best: sampler.ArgmaxToken) -> list[EngineEvent]:
        choice = sampler.sample_token(sequence, logits, best)
        assert self.runner is not None
        if choice.token in sequence.request.stop_ids:
            self.runner.commit(sequence)
            return [self._remove_and_finish(sequence, "stop")]
        sequence.output_ids.append(choice.token)
        self.runner.commit(sequence)
        readings = _pop_readings(sequence)
        token = Token(id=sequence.id, token=choice.token, logprob=choice.logprob, top=choice.top, readings=readings)
        if sequence.sampler_state.is_complete:
            return [token, self._remove_and_finish(sequence, "stop")]
        return [token, self._remove_and_finish(sequence, "length")] if sequence.is_at_limit else [token]

    def _remove_and_finish(self, sequence: Sequence, reason: SequenceEndReason) -> Finished:
        self.scheduler.remove(sequence)
        return self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: SequenceEndReason) -> Finished:
        receipt = self._close(sequence)
        readings = _pop_readings(sequence) if reason != "cancelled" else ()
        return Finished(
            id=sequence.id, reason=reason, receipt=receipt, readings=readings, cached_tokens=sequence.num_cached_tokens
        )

    def _close(self, sequence: Sequence) -> SteeringReceipt | None:
        """Release the sequence's cache and hook rows; → its receipt."""
        if self.runner is not None:
            self.runner.release(sequence)
        return self.attached_saes.finish(sequence)


def _pop_readings(sequence: Sequence) -> tuple[Reading, ...]:
    readings, sequence.readings = tuple(sequence.readings), []
    return readings
