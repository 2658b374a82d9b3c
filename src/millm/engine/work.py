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

from millm.engine import embedding, judging, memory, sampler, scoring, surveying
from millm.engine.failing import failed
from millm.engine.faults import Faults
from millm.engine.grammar import Vocabulary
from millm.engine.messages import Embed, Event, Finished, Judge, Reading, Reason, Receipt, Survey, Token
from millm.engine.relief import Relief
from millm.engine.runners.runner import Runner
from millm.engine.scheduler import Pass, Row, Scheduler
from millm.engine.sequence import Sequence
from millm.engine.taps import Taps
from millm.engine.watchdog import EXIT_CODE
from millm.errors import ContextLengthExceeded, ModelCannotGenerate, ModelNotLoaded, Timeout
from millm.sae.steering import Steering

log = structlog.get_logger()

Post = Callable[[list[Event]], None]


@dataclass
class Work:
    """Without a model, until one is loaded: then whatever is asked for is refused."""

    faults: Faults
    post: Post
    model: PreTrainedModel | None = None
    runner: Runner | None = None
    """None: nothing is loaded, or an encoder, which only embeds."""
    taps: Taps = field(default_factory=Taps)
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary(Path(), 0, (), ()))
    scheduler: Scheduler = field(default_factory=lambda: Scheduler(capacity=1))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where the model is, or was."""
    context: int = sys.maxsize
    """Tokens that a text may have."""
    load: str = ""
    """Of the command that brought the model."""

    def step(self) -> None:
        events: list[Event] = [self._finish(sequence, "cancelled") for sequence in self.scheduler.take_cancelled()]
        events += self._time_out(self.scheduler.take_late(time.monotonic()))
        for sequence in self.scheduler.admit(self._fits):
            events += self._guarded([sequence], partial(self._start, sequence))
        for rows in self.scheduler.plan(partial(self._place, events)):
            if self.scheduler.runs(rows):
                events += self._advance(rows)
        events += self._next_text()
        if events:
            self.post(events)
        self.sweep()

    def follow(self, steering: Steering | None) -> None:
        """What follows the active steering has the new one from its next token on."""
        for sequence in self.scheduler.everybody:
            if sequence.request.follows_active and sequence.steering != steering:
                self.post(self._guarded([sequence], partial(self._change, sequence, steering)))

    def _change(self, sequence: Sequence, steering: Steering | None) -> list[Event]:
        assert self.runner is not None
        self.taps.change(sequence, steering)
        self.runner.change(sequence)
        return []

    def attachments_changed(self) -> None:
        """What was computed with an SAE that is detached now, or before one came, is not gone on from."""
        if self.runner is not None:
            for sequence in self.taps.leaving(self.scheduler.everybody):
                self.runner.change(sequence)
            self.runner.forget()
        self.sweep()

    def sweep(self) -> None:
        """Take off the hooks that nobody uses any more."""
        if self.taps.sweep() and self.runner is not None:
            self.runner.forget()

    def stop(self, why: str) -> None:
        """The model goes: whatever waits or runs ends here."""
        for sequence in self.scheduler.take_all():
            self._close(sequence)
            self.post([failed(sequence.id, ModelNotLoaded(why))])
        self.taps.remove_all()

    def _next_text(self) -> list[Event]:
        """At most one text in a step, so that the streams go on."""
        text = self.scheduler.next_text(self.taps.fits)
        return self._guarded([text], partial(self._finish_text, text)) if text else []

    def _finish_text(self, text: Sequence) -> list[Event]:
        self._check_model(text)
        self.faults.point = "prefill"
        answer = self._answer_of(text)
        self.scheduler.remove(text)
        self._close(text)
        return [answer]

    def _answer_of(self, text: Sequence) -> Event:
        assert self.model is not None
        assert text.text is not None
        if text.length > self.context:
            raise ContextLengthExceeded(f"this text has {text.length} tokens, the model takes {self.context}")
        match text.text:
            case Embed() as asked:
                return embedding.embed(self.model, self.taps, text, asked)
            case Survey() as asked:
                return surveying.survey(self.model, self.taps, asked)
            case Judge() as asked:
                self._check_generates()
                return judging.judge(self.model, self.taps, text, asked)

    def _time_out(self, sequences: Iterable[Sequence]) -> list[Event]:
        events: list[Event] = []
        for sequence in sequences:
            self._close(sequence)
            seconds = sequence.request.deadline_seconds
            events.append(failed(sequence.id, Timeout(f"this request took longer than {seconds:g} s; ask for less")))
        return events

    def _fits(self, sequence: Sequence) -> bool:
        return self.runner is None or (self.taps.fits(sequence) and self.runner.fits(sequence))

    def _start(self, sequence: Sequence) -> list[Event]:
        self._check_model(sequence)
        self._check_generates()
        if sequence.taps is None:
            self.taps.start(sequence)
        if sequence.sampler is None:
            constraint = self.vocabulary.constraint(sequence.request.grammar)
            sequence.sampler = sampler.start(sequence.request.sampling, self.device, constraint)
        return []

    def _check_model(self, sequence: Sequence) -> None:
        """Token ids of one model mean nothing to another."""
        if self.model is None:
            raise ModelNotLoaded("no model is loaded")
        if sequence.request.model not in ("", self.load):
            raise ModelNotLoaded("the model was replaced while this request was read; ask again")

    def _check_generates(self) -> None:
        if self.runner is None:
            raise ModelCannotGenerate("this model only embeds: it has no head that writes tokens")

    def _place(self, events: list[Event], sequence: Sequence) -> bool:
        """A row of the cache for a sequence whose prompt begins; False if it ended instead."""
        ended = self._guarded([sequence], partial(self._settle_in, sequence)) if sequence.cache is None else []
        events += ended
        return not ended

    def _settle_in(self, sequence: Sequence) -> list[Event]:
        assert self.runner is not None
        wants_prompt = any(watch.tokens != "generated" for watch in sequence.watch) or sequence.is_unscored
        trail = self.runner.place(sequence, reuse=not wants_prompt)
        self.taps.resume(sequence, trail, sequence.fed)
        self.runner.keep(sequence, sequence.taps)
        sequence.cached = max(sequence.cached, sequence.fed) if not sequence.generated else sequence.cached
        return []

    def _guarded(self, sequences: list[Sequence], work: Callable[[], list[Event]]) -> list[Event]:
        """The edge where a failure becomes the end of the sequences it happened to, and of no others."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001  the loop outlives any step
            return self._fail(sequences, error)

    def _fail(self, sequences: list[Sequence], error: Exception) -> list[Event]:
        """A device that is lost ends the process, once those it happened to have been told."""
        for sequence in sequences:
            self.scheduler.remove(sequence)
            self._close(sequence)
        events: list[Event] = [failed(sequence.id, error) for sequence in sequences]
        if isinstance(error, torch.AcceleratorError):
            log.error("engine.device_lost", exc_info=error)
            self.post(events)
            os._exit(EXIT_CODE)
        return events

    def _advance(self, rows: Pass) -> list[Event]:
        assert self.runner is not None
        rows = self.runner.in_order(rows)
        try:
            logits, readings, best = self._forward(rows)
        except Exception as error:  # noqa: BLE001  the loop outlives any pass
            return self._contain(rows, error)
        events: list[Event] = []
        for index, row in enumerate(rows):
            row.sequence.readings += readings[index]
            events += self._guarded([row.sequence], partial(self._conclude, row, logits[index], best[index]))
        return events

    def _forward(self, rows: Pass) -> tuple[Tensor, list[tuple[Reading, ...]], list[sampler.Likeliest]]:
        assert self.runner is not None
        self.faults.point = "prefill" if rows[0].sequence.prefilling else "decode"
        self.taps.prepare(rows)
        logits = self.runner.run(rows)  # [rows, 1 or T, V]
        return logits, self.taps.collect(rows), sampler.likeliest(logits[:, -1])

    def _contain(self, rows: Pass, error: Exception) -> list[Event]:
        """Out of memory: give something up, and the same rows are planned again. Anything else ends these rows."""
        assert self.runner is not None
        assert self.model is not None
        sequences = [row.sequence for row in rows]
        again = not any(row.was_fed for row in rows)
        for sequence in sequences:
            self.runner.recover(sequence)
        if again and memory.is_out_of_memory(error):
            relieved = Relief(self.taps, self.runner, self.scheduler, self.model.device).find()
            if relieved is not None:
                return relieved
        return self._fail(sequences, error)

    def _conclude(self, row: Row, logits: Tensor, best: sampler.Likeliest) -> list[Event]:
        """What follows from `logits [1 or T, V]`: scores of a prompt, the next token."""
        scores = scoring.score(row, logits) if row.is_scored else None
        events: list[Event] = [scores] if scores else []
        if not row.chooses:
            return events
        if row.sequence.is_at_limit:
            return [*events, self._end(row.sequence, "length")]
        return [*events, *self._extend(row.sequence, logits[-1], best)]

    def _extend(self, sequence: Sequence, logits: Tensor, best: sampler.Likeliest) -> list[Event]:
        choice = sampler.choose(sequence, logits, best)
        assert self.runner is not None
        if choice.token in sequence.request.stop_ids:
            self.runner.settle(sequence)
            return [self._end(sequence, "stop")]
        sequence.generated.append(choice.token)
        self.runner.settle(sequence)
        readings = _take_readings(sequence)
        token = Token(id=sequence.id, token=choice.token, logprob=choice.logprob, top=choice.top, readings=readings)
        if sequence.sampler.is_complete:
            return [token, self._end(sequence, "stop")]
        return [token, self._end(sequence, "length")] if sequence.is_at_limit else [token]

    def _end(self, sequence: Sequence, reason: Reason) -> Finished:
        self.scheduler.remove(sequence)
        return self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: Reason) -> Finished:
        receipt = self._close(sequence)
        readings = _take_readings(sequence) if reason != "cancelled" else ()
        return Finished(
            id=sequence.id, reason=reason, receipt=receipt, readings=readings, cached_tokens=sequence.cached
        )

    def _close(self, sequence: Sequence) -> Receipt | None:
        """Give back what the sequence holds; → its receipt."""
        if self.runner is not None:
            self.runner.release(sequence)
        return self.taps.finish(sequence)


def _take_readings(sequence: Sequence) -> tuple[Reading, ...]:
    readings, sequence.readings = tuple(sequence.readings), []
    return readings
