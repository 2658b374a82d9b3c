"""One loaded model at work: who runs on it, a step at a time; a failure ends those it happened to and nobody else.

Knows nothing about commands, text or HTTP.
"""

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

from millm.engine import out_of_memory, sampler, scoring
from millm.engine import scoring as embedding
from millm.engine import scoring as judging
from millm.engine import scoring as surveying
from millm.engine.attached_saes import AttachedSaes
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
from millm.engine.out_of_memory import OutOfMemoryHandler, failure_event
from millm.engine.scheduler import ForwardPass, ScheduledRow, Scheduler, Sequence
from millm.engine.structured_output import GrammarVocabulary
from millm.engine.watchdog import EXIT_CODE
from millm.errors import ContextLengthExceeded, ModelCannotGenerate, ModelNotLoaded, Timeout
from millm.sae.steering import Steering

log = structlog.get_logger()
SendEvents = Callable[[list[EngineEvent]], None]


@dataclass
class ModelExecutor:
    """Without a model, until one is loaded: then whatever is asked for is refused."""

    fault_injector: FaultInjector
    send_events: SendEvents
    model: PreTrainedModel | None = None
    runner: Runner | None = None
    """None: nothing is loaded, or an encoder, which only embeds."""
    attached_saes: AttachedSaes = field(default_factory=AttachedSaes)
    vocabulary: GrammarVocabulary = field(default_factory=lambda: GrammarVocabulary(Path(), 0, (), ()))
    scheduler: Scheduler = field(default_factory=lambda: Scheduler(capacity=1))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where the model is, or was."""
    max_text_tokens: int = sys.maxsize
    """Tokens that a text may have."""
    load_id: str = ""
    """Of the command that brought the model."""

    def step(self) -> None:
        events: list[EngineEvent] = [self._finish(sequence, "cancelled") for sequence in self.scheduler.pop_cancelled()]
        events += self._time_out(self.scheduler.pop_expired(time.monotonic()))
        for sequence in self.scheduler.admit(self._fits):
            events += self._run_guarded([sequence], partial(self._start, sequence))
        for rows in self.scheduler.plan(partial(self._try_allocate, events)):
            if self.scheduler.is_running(rows):
                events += self._run_pass(rows)
        events += self._run_next_text()
        if events:
            self.send_events(events)
        self.remove_unused_hooks()

    def set_active_steering(self, steering: Steering | None) -> None:
        """What follows the active steering has the new one from its next token on."""
        for sequence in self.scheduler.all_sequences:
            if sequence.request.follows_active and sequence.steering != steering:
                self.send_events(self._run_guarded([sequence], partial(self._change, sequence, steering)))

    def _change(self, sequence: Sequence, steering: Steering | None) -> list[EngineEvent]:
        assert self.runner is not None
        self.attached_saes.change_steering(sequence, steering)
        self.runner.on_steering_change(sequence)
        return []

    def on_attachments_changed(self) -> None:
        """What was computed with an SAE that is detached now, or before one came, is not gone on from."""
        if self.runner is not None:
            for sequence in self.attached_saes.using_detached(self.scheduler.all_sequences):
                self.runner.on_steering_change(sequence)
            self.runner.invalidate_cache()
        self.remove_unused_hooks()

    def remove_unused_hooks(self) -> None:
        """Take off the hooks that nobody uses any more."""
        if self.attached_saes.remove_unused_hooks() and self.runner is not None:
            self.runner.invalidate_cache()

    def stop(self, reason: str) -> None:
        """The model goes: whatever waits or runs ends here."""
        for sequence in self.scheduler.pop_all():
            self._close(sequence)
            self.send_events([failure_event(sequence.id, ModelNotLoaded(reason))])
        self.attached_saes.remove_all()

    def _run_next_text(self) -> list[EngineEvent]:
        """At most one text in a step, so that the streams go on."""
        text = self.scheduler.next_text(self.attached_saes.has_room)
        return self._run_guarded([text], partial(self._run_text, text)) if text else []

    def _run_text(self, text: Sequence) -> list[EngineEvent]:
        self._check_model(text)
        self.fault_injector.current_point = "prefill"
        answer = self._text_result(text)
        self.scheduler.remove(text)
        self._close(text)
        return [answer]

    def _text_result(self, text: Sequence) -> EngineEvent:
        assert self.model is not None
        assert text.text_command is not None
        if text.length > self.max_text_tokens:
            raise ContextLengthExceeded(f"this text has {text.length} tokens, the model takes {self.max_text_tokens}")
        match text.text_command:
            case Embed() as asked:
                return embedding.embed(self.model, self.attached_saes, text, asked)
            case ScanFeatures() as asked:
                return surveying.scan_features(self.model, self.attached_saes, asked)
            case ScoreAnswer() as asked:
                self._check_generates()
                return judging.score_answer(self.model, self.attached_saes, text, asked)

    def _time_out(self, sequences: Iterable[Sequence]) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for sequence in sequences:
            self._close(sequence)
            seconds = sequence.request.deadline_seconds
            events.append(
                failure_event(sequence.id, Timeout(f"this request took longer than {seconds:g} s; ask for less"))
            )
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
        """Token ids of one model mean nothing to another."""
        if self.model is None:
            raise ModelNotLoaded("no model is loaded")
        if sequence.request.model not in ("", self.load_id):
            raise ModelNotLoaded("the model was replaced while this request was read; ask again")

    def _check_generates(self) -> None:
        if self.runner is None:
            raise ModelCannotGenerate("this model only embeds: it has no head that writes tokens")

    def _try_allocate(self, events: list[EngineEvent], sequence: Sequence) -> bool:
        """A row of the cache for a sequence whose prompt begins; False if it ended instead."""
        ended = self._run_guarded([sequence], partial(self._allocate_row, sequence)) if sequence.cache is None else []
        events += ended
        return not ended

    def _allocate_row(self, sequence: Sequence) -> list[EngineEvent]:
        assert self.runner is not None
        wants_prompt = any(watch.tokens != "generated" for watch in sequence.watch) or sequence.needs_prompt_scores
        trail = self.runner.allocate(sequence, reuse=not wants_prompt)
        self.attached_saes.inherit_prefix(sequence, trail, sequence.num_computed_tokens)
        self.runner.store_prefix_state(sequence, sequence.hook_state)
        sequence.num_cached_tokens = (
            max(sequence.num_cached_tokens, sequence.num_computed_tokens)
            if not sequence.output_ids
            else sequence.num_cached_tokens
        )
        return []

    def _run_guarded(self, sequences: list[Sequence], action: Callable[[], list[EngineEvent]]) -> list[EngineEvent]:
        """The edge where a failure becomes the end of the sequences it happened to, and of no others."""
        try:
            return action()
        except Exception as error:  # noqa: BLE001  the loop outlives any step
            return self._fail(sequences, error)

    def _fail(self, sequences: list[Sequence], error: Exception) -> list[EngineEvent]:
        """A device that is lost ends the process, once those it happened to have been told."""
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
        """Out of memory: give something up, and the same rows are planned again. Anything else ends these rows."""
        assert self.runner is not None
        assert self.model is not None
        sequences = [row.sequence for row in rows]
        again = not any(row.is_computed for row in rows)
        for sequence in sequences:
            self.runner.recover(sequence)
        if again and out_of_memory.is_out_of_memory(error):
            relieved = OutOfMemoryHandler(self.attached_saes, self.runner, self.scheduler, self.model.device).degrade()
            if relieved is not None:
                return relieved
        return self._fail(sequences, error)

    def _handle_logits(self, row: ScheduledRow, logits: Tensor, best: sampler.ArgmaxToken) -> list[EngineEvent]:
        """What follows from `logits [1 or T, V]`: scores of a prompt, the next token."""
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
        """Give back what the sequence holds; → its receipt."""
        if self.runner is not None:
            self.runner.release(sequence)
        return self.attached_saes.finish(sequence)


def _pop_readings(sequence: Sequence) -> tuple[Reading, ...]:
    readings, sequence.readings = tuple(sequence.readings), []
    return readings
