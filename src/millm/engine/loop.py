"""The one thread that owns the device: drain the inbox, plan a step, run it, post what happened.

Knows nothing about text or HTTP. Everything it is told and everything it says is a message.
"""

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

import structlog
import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine import model as models
from millm.engine import sampler
from millm.engine.attach import attach
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    Event,
    Failed,
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
from millm.engine.runners.plain import PlainRunner
from millm.engine.scheduler import Scheduler, StepPlan
from millm.engine.sequence import Sequence
from millm.engine.taps import Taps
from millm.errors import EngineFailed, InsufficientMemory, MillmError, ModelNotLoaded

log = structlog.get_logger()

Inbox = SimpleQueue[list[Command]]
Post = Callable[[list[Event]], None]


class Engine:
    def __init__(self, inbox: Inbox, post: Post) -> None:
        self._inbox = inbox
        self._post = post
        self._runner: PlainRunner | None = None
        self._model: PreTrainedModel | None = None
        self._taps = Taps()
        self._scheduler = Scheduler(PlainRunner.capacity)

    def run(self) -> None:
        """Never returns; the process ends when the API process does."""
        while True:
            self._receive()
            self._step()

    # ----------------------------------------------------------------------------------------------- commands

    def _receive(self) -> None:
        """Everything that waits in the inbox; blocks only when there is nothing to generate."""
        while self._scheduler.is_idle or not self._inbox.empty():
            for command in self._inbox.get():
                self._obey(command)

    def _obey(self, command: Command) -> None:
        match command:
            case Generate():
                self._scheduler.add(command)
            case Cancel():
                self._scheduler.cancel(command.id)
            case LoadModel():
                self._answer(command.id, partial(self._load, command))
            case SetActiveSteering():
                pass
            case AttachSae():
                self._answer(command.id, partial(self._attach, command))

    def _answer(self, command_id: str, work: Callable[[], Event]) -> None:
        """The edge where a command's failure becomes its answer; what was there before goes on serving."""
        try:
            self._post([work()])
        except Exception as error:  # noqa: BLE001  the loop outlives any command
            self._post([_failed(command_id, error)])

    def _load(self, command: LoadModel) -> Event:
        if command.cpu_threads:
            torch.set_num_threads(command.cpu_threads)
        model = models.load(command, self._progress(command.id))
        runner = PlainRunner(model)
        facts = models.facts(model, runner.name)
        for sequence in self._scheduler.take_all():
            self._close(sequence)
            self._post([_failed(sequence.id, ModelNotLoaded("the model was replaced while this request ran"))])
        self._taps.remove_all()
        self._model, self._runner = model, runner
        self._taps = Taps(frozenset(command.special_ids))
        self._scheduler = Scheduler(runner.capacity)
        return ModelLoaded(id=command.id, facts=facts)

    def _attach(self, command: AttachSae) -> Event:
        if self._model is None:
            raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
        facts = attach(self._model, self._taps, command, self._progress(command.id))
        return SaeAttached(id=command.id, facts=facts)

    def _progress(self, command_id: str) -> models.OnProgress:
        return lambda stage, done, total: self._post([Progress(id=command_id, stage=stage, done=done, total=total)])

    # --------------------------------------------------------------------------------------------------- a step

    def _step(self) -> None:
        events: list[Event] = [self._finish(sequence, "cancelled") for sequence in self._scheduler.take_cancelled()]
        for sequence in self._scheduler.admit():
            events += self._guarded([sequence], partial(self._start, sequence))
        plan = self._scheduler.plan()
        if plan.rows:
            events += self._guarded([row.sequence for row in plan.rows], partial(self._advance, plan))
        if events:
            self._post(events)

    def _guarded(self, sequences: list[Sequence], work: Callable[[], list[Event]]) -> list[Event]:
        """The edge where a step's failure becomes the end of the sequences that were in it, and of no others."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001  the loop outlives any step
            for sequence in sequences:
                self._scheduler.remove(sequence)
                self._close(sequence)
            return [_failed(sequence.id, error) for sequence in sequences]

    def _start(self, sequence: Sequence) -> list[Event]:
        if self._model is None:
            raise ModelNotLoaded("no model is loaded")
        self._taps.start(sequence)
        sequence.sampler = sampler.start(sequence.request.sampling, self._model.device)
        return []

    def _advance(self, plan: StepPlan) -> list[Event]:
        assert self._runner is not None
        self._taps.prepare(plan.rows)
        logits = self._runner.run(plan)  # [rows, V]
        readings = self._taps.collect(plan.rows)
        events: list[Event] = []
        for row, row_logits, read in zip(plan.rows, logits, readings, strict=True):
            events += self._guarded([row.sequence], partial(self._extend, row.sequence, row_logits, read))
        return events

    def _extend(self, sequence: Sequence, logits: Tensor, readings: tuple[Reading, ...]) -> list[Event]:
        choice = sampler.choose(sequence, logits)
        if choice.token in sequence.request.stop_ids:
            return [self._end(sequence, "stop", readings)]
        sequence.generated.append(choice.token)
        token = Token(id=sequence.id, token=choice.token, logprob=choice.logprob, top=choice.top, readings=readings)
        return [token, self._end(sequence, "length")] if sequence.is_at_limit else [token]

    def _end(self, sequence: Sequence, reason: Reason, readings: tuple[Reading, ...] = ()) -> Finished:
        self._scheduler.remove(sequence)
        return self._finish(sequence, reason, readings)

    def _finish(self, sequence: Sequence, reason: Reason, readings: tuple[Reading, ...] = ()) -> Finished:
        receipt = self._close(sequence)
        return Finished(id=sequence.id, reason=reason, receipt=receipt, readings=readings)

    def _close(self, sequence: Sequence) -> Receipt | None:
        """Give back what the sequence holds; → its receipt."""
        if self._runner is not None:
            self._runner.release(sequence)
        return self._taps.finish(sequence)


def _failed(command_id: str, error: Exception) -> Failed:
    """What the API process is told; the trace stays in the log."""
    if isinstance(error, torch.OutOfMemoryError):
        error = InsufficientMemory("the device ran out of memory for this request; make it shorter or try again")
    elif not isinstance(error, MillmError):
        log.error("engine.failed", command=command_id, exc_info=error)
        error = EngineFailed("the engine could not finish this; the server's log has the reason")
    return Failed(id=command_id, code=error.code, message=error.message, param=error.param)
