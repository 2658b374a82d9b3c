"""The one thread that owns the device: drain the inbox, plan a step, run it, post what happened.

Knows nothing about text or HTTP. Everything it is told and everything it says is a message.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import torch

from millm.engine import model as models
from millm.engine.attach import attach
from millm.engine.failing import failed
from millm.engine.faults import Faults
from millm.engine.grammar import Vocabulary
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    Done,
    Embed,
    Event,
    Fault,
    Generate,
    LoadModel,
    ModelLoaded,
    Progress,
    SaeAttached,
    SetActiveSteering,
)
from millm.engine.selftest import choose_runner
from millm.engine.taps import Taps
from millm.engine.watchdog import Watchdog
from millm.engine.work import Post, Work
from millm.errors import ModelNotLoaded

Inbox = SimpleQueue[list[Command]]


class Engine:
    def __init__(self, inbox: Inbox, post: Post, watchdog: Watchdog) -> None:
        self._inbox = inbox
        self._post = post
        self._watchdog = watchdog
        self._faults = Faults()
        self.work = Work(self._faults, post)

    def run(self) -> None:
        """Never returns; the process ends when the API process does."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Everything that was said, then one step; waits only when there is nothing to do."""
        self._receive()
        with self._watchdog.step():
            self.work.step()

    def _receive(self) -> None:
        """Everything that waits in the inbox; blocks only when there is nothing to generate."""
        waits = self.work.scheduler.is_idle
        while waits or not self._inbox.empty():
            for command in self._inbox.get():
                self._obey(command)
            waits = False

    def _obey(self, command: Command) -> None:
        match command:
            case Generate():
                self.work.scheduler.add(command)
            case Embed():
                self.work.scheduler.add_text(command)
            case Cancel():
                self.work.scheduler.cancel(command.id)
            case SetActiveSteering():
                self.work.follow(command.steering)
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
            self._post([failed(command_id, error)])

    def _load(self, command: LoadModel) -> Event:
        if command.cpu_threads:
            torch.set_num_threads(command.cpu_threads)
        self._faults.pass_by("load")
        model = models.load(command, self._progress(command.id))
        taps = Taps(frozenset(command.special_ids))
        verdict = choose_runner(model, command, taps.steered, taps.attached)
        models.pack(model, command, self._progress(command.id))  # after the test, which compares to the last digits
        facts = models.facts(model, verdict)
        self.work.stop()
        vocabulary = Vocabulary(Path(command.path), facts.vocab_size, facts.stop_ids, command.special_ids)
        self.work = Work(self._faults, self._post, model, verdict.runner, taps, vocabulary, verdict.scheduler())
        self._faults.watch(model)
        return ModelLoaded(id=command.id, facts=facts)

    def _attach(self, command: AttachSae) -> Event:
        if self.work.model is None:
            raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
        self._faults.pass_by("attach")
        facts = attach(self.work.model, self.work.taps, command, self._progress(command.id))
        if self.work.runner is not None:
            self.work.runner.forget()
        return SaeAttached(id=command.id, facts=facts)

    def _arm(self, fault: Fault) -> Event:
        self._faults.arm(fault)
        return Done(id=fault.id)

    def _progress(self, command_id: str) -> models.OnProgress:
        return lambda stage, done, total: self._post([Progress(id=command_id, stage=stage, done=done, total=total)])
