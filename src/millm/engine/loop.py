"""The one thread that owns the device: drain the inbox, plan a step, run it, post what happened.

Knows nothing about text or HTTP. Everything it is told and everything it says is a message.
"""

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import structlog
import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine import embedding, memory, sampler, scoring
from millm.engine import model as models
from millm.engine.attach import attach
from millm.engine.faults import Faults
from millm.engine.grammar import Vocabulary
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    Embed,
    Event,
    Failed,
    Fault,
    FaultArmed,
    Finished,
    Generate,
    LoadModel,
    ModelLoaded,
    Progress,
    Reading,
    Reason,
    Receipt,
    SaeAttached,
    SetActiveSteering,
    Token,
)
from millm.engine.relief import Relief
from millm.engine.runners.runner import Runner
from millm.engine.scheduler import Pass, Row, Scheduler
from millm.engine.selftest import choose_runner
from millm.engine.sequence import Sequence
from millm.engine.taps import Taps
from millm.engine.watchdog import EXIT_CODE, Watchdog
from millm.errors import EngineFailed, InsufficientMemory, MillmError, ModelCannotGenerate, ModelNotLoaded, Timeout

log = structlog.get_logger()

Inbox = SimpleQueue[list[Command]]
Post = Callable[[list[Event]], None]


class Engine:
    def __init__(self, inbox: Inbox, post: Post, watchdog: Watchdog) -> None:
        self._inbox = inbox
        self._post = post
        self._watchdog = watchdog
        self._faults = Faults()
        self._runner: Runner | None = None
        self._model: PreTrainedModel | None = None
        self._taps = Taps()
        self._vocabulary = Vocabulary(Path(), 0, (), ())
        self._scheduler = Scheduler(capacity=1)

    def run(self) -> None:
        """Never returns; the process ends when the API process does."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Everything that was said, then one step; waits only when there is nothing to do."""
        self._receive()
        with self._watchdog.step():
            self._step()

    # ----------------------------------------------------------------------------------------------- commands

    def _receive(self) -> None:
        """Everything that waits in the inbox; blocks only when there is nothing to generate."""
        waits = self._scheduler.is_idle
        while waits or not self._inbox.empty():
            for command in self._inbox.get():
                self._obey(command)
            waits = False

    def _obey(self, command: Command) -> None:
        match command:
            case Generate():
                self._scheduler.add(command)
            case Embed():
                self._scheduler.add_text(command)
            case Cancel():
                self._scheduler.cancel(command.id)
            case SetActiveSteering():
                self._follow(command)
            case LoadModel():
                self._answer(command.id, partial(self._load, command))
            case AttachSae():
                self._answer(command.id, partial(self._attach, command))
            case Fault():
                self._answer(command.id, partial(self._arm, command))

    def _answer(self, command_id: str, work: Callable[[], Event]) -> None:
        """The edge where a command's failure becomes its answer; what was there before goes on serving."""
        try:
            self._post([work()])
        except Exception as error:  # noqa: BLE001  the loop outlives any command
            self._post([_failed(command_id, error)])

    def _load(self, command: LoadModel) -> Event:
        if command.cpu_threads:
            torch.set_num_threads(command.cpu_threads)
        self._faults.pass_by("load")
        model = models.load(command, self._progress(command.id))
        taps = Taps(frozenset(command.special_ids))
        verdict = choose_runner(model, command, taps.steered, taps.attached)
        models.pack(model, command, self._progress(command.id))  # after the test, which compares to the last digits
        facts = models.facts(model, verdict)
        for sequence in self._scheduler.take_all():
            self._close(sequence)
            self._post([_failed(sequence.id, ModelNotLoaded("the model was replaced while this request ran"))])
        self._taps.remove_all()
        self._model, self._runner, self._taps = model, verdict.runner, taps
        self._vocabulary = Vocabulary(Path(command.path), facts.vocab_size, facts.stop_ids, command.special_ids)
        self._scheduler = verdict.scheduler()
        self._faults.watch(model)
        return ModelLoaded(id=command.id, facts=facts)

    def _attach(self, command: AttachSae) -> Event:
        if self._model is None:
            raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
        self._faults.pass_by("attach")
        facts = attach(self._model, self._taps, command, self._progress(command.id))
        if self._runner is not None:
            self._runner.forget()
        return SaeAttached(id=command.id, facts=facts)

    def _arm(self, fault: Fault) -> Event:
        self._faults.arm(fault)
        return FaultArmed(id=fault.id)

    def _progress(self, command_id: str) -> models.OnProgress:
        return lambda stage, done, total: self._post([Progress(id=command_id, stage=stage, done=done, total=total)])

    def _follow(self, command: SetActiveSteering) -> None:
        """What follows the active steering has the new one from its next token on."""
        for sequence in self._scheduler.everybody:
            if sequence.request.follows_active and sequence.steering != command.steering:
                self._post(self._guarded([sequence], partial(self._change, sequence, command)))

    def _change(self, sequence: Sequence, command: SetActiveSteering) -> list[Event]:
        assert self._runner is not None
        self._taps.change(sequence, command.steering)
        self._runner.change(sequence)
        return []

    # --------------------------------------------------------------------------------------------------- a step

    def _step(self) -> None:
        events: list[Event] = [self._finish(sequence, "cancelled") for sequence in self._scheduler.take_cancelled()]
        events += self._time_out(self._scheduler.take_late(time.monotonic()))
        for sequence in self._scheduler.admit(self._fits):
            events += self._guarded([sequence], partial(self._start, sequence))
        for rows in self._scheduler.plan(partial(self._place, events)):
            if self._scheduler.runs(rows):
                events += self._advance(rows)
        events += self._embed()
        if events:
            self._post(events)

    def _embed(self) -> list[Event]:
        """At most one text in a step, so that the streams go on."""
        text = self._scheduler.next_text(self._taps.fits)
        return self._guarded([text], partial(self._embed_text, text)) if text else []

    def _embed_text(self, text: Sequence) -> list[Event]:
        self._faults.point = "prefill"
        embedded = embedding.embed(self._model, self._taps, text)
        self._scheduler.remove(text)
        self._close(text)
        return [embedded]

    def _time_out(self, sequences: Iterable[Sequence]) -> list[Event]:
        events: list[Event] = []
        for sequence in sequences:
            self._close(sequence)
            seconds = sequence.request.deadline_seconds
            events.append(_failed(sequence.id, Timeout(f"this request took longer than {seconds:g} s; ask for less")))
        return events

    def _fits(self, sequence: Sequence) -> bool:
        return self._runner is None or (self._taps.fits(sequence) and self._runner.fits(sequence))

    def _start(self, sequence: Sequence) -> list[Event]:
        if self._model is None:
            raise ModelNotLoaded("no model is loaded")
        if self._runner is None:
            raise ModelCannotGenerate("this model only embeds: it has no head that writes tokens")
        if sequence.taps is None:
            self._taps.start(sequence)
        if sequence.sampler is None:
            constraint = self._vocabulary.constraint(sequence.request.grammar)
            sequence.sampler = sampler.start(sequence.request.sampling, self._model.device, constraint)
        return []

    def _place(self, events: list[Event], sequence: Sequence) -> bool:
        """A row of the cache for a sequence whose prompt begins; False if it ended instead."""
        failed = self._guarded([sequence], partial(self._settle_in, sequence)) if sequence.cache is None else []
        events += failed
        return not failed

    def _settle_in(self, sequence: Sequence) -> list[Event]:
        assert self._runner is not None
        wants_prompt = any(watch.tokens != "generated" for watch in sequence.watch) or sequence.is_unscored
        trail = self._runner.place(sequence, reuse=not wants_prompt)
        self._taps.resume(sequence, trail, sequence.fed)
        self._runner.keep(sequence, sequence.taps)
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
            self._scheduler.remove(sequence)
            self._close(sequence)
        events: list[Event] = [_failed(sequence.id, error) for sequence in sequences]
        if isinstance(error, torch.AcceleratorError):
            log.error("engine.device_lost", exc_info=error)
            self._post(events)
            os._exit(EXIT_CODE)
        return events

    def _advance(self, rows: Pass) -> list[Event]:
        assert self._runner is not None
        rows = self._runner.in_order(rows)
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
        assert self._runner is not None
        self._faults.point = "prefill" if rows[0].sequence.prefilling else "decode"
        self._taps.prepare(rows)
        logits = self._runner.run(rows)  # [rows, 1 or T, V]
        return logits, self._taps.collect(rows), sampler.likeliest(logits[:, -1])

    def _contain(self, rows: Pass, error: Exception) -> list[Event]:
        """Out of memory: give something up, and the same rows are planned again. Anything else ends these rows."""
        assert self._runner is not None
        assert self._model is not None
        sequences = [row.sequence for row in rows]
        again = not any(row.was_fed for row in rows)
        for sequence in sequences:
            self._runner.recover(sequence)
        if again and memory.is_out_of_memory(error):
            relieved = Relief(self._taps, self._runner, self._scheduler, self._model.device).find()
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
        assert self._runner is not None
        if choice.token in sequence.request.stop_ids:
            self._runner.settle(sequence)
            return [self._end(sequence, "stop")]
        sequence.generated.append(choice.token)
        self._runner.settle(sequence)
        readings = _take_readings(sequence)
        token = Token(id=sequence.id, token=choice.token, logprob=choice.logprob, top=choice.top, readings=readings)
        if sequence.sampler.is_complete:
            return [token, self._end(sequence, "stop")]
        return [token, self._end(sequence, "length")] if sequence.is_at_limit else [token]

    def _end(self, sequence: Sequence, reason: Reason) -> Finished:
        self._scheduler.remove(sequence)
        return self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: Reason) -> Finished:
        receipt = self._close(sequence)
        readings = _take_readings(sequence) if reason != "cancelled" else ()
        return Finished(
            id=sequence.id, reason=reason, receipt=receipt, readings=readings, cached_tokens=sequence.cached
        )

    def _close(self, sequence: Sequence) -> Receipt | None:
        """Give back what the sequence holds; → its receipt."""
        if self._runner is not None:
            self._runner.release(sequence)
        return self._taps.finish(sequence)


def _take_readings(sequence: Sequence) -> tuple[Reading, ...]:
    readings, sequence.readings = tuple(sequence.readings), []
    return readings


def _failed(command_id: str, error: Exception) -> Failed:
    """What the API process is told; the trace stays in the log."""
    if memory.is_out_of_memory(error):
        error = InsufficientMemory("the device ran out of memory for this request; make it shorter or try again")
    elif not isinstance(error, MillmError):
        log.error("engine.failed", command=command_id, exc_info=error)
        error = EngineFailed("the engine could not finish this; the server's log has the reason")
    return Failed(id=command_id, code=error.code, message=error.message, param=error.param)
