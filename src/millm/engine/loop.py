"""The one thread that owns the device: drain the inbox, plan a step, run it, post what happened.

Knows nothing about text or HTTP. Everything it is told and everything it says is a message.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import torch
from msgspec.structs import replace

from millm.engine import memory, platform, study
from millm.engine import model as models
from millm.engine.attach import attach, stage
from millm.engine.failing import failed
from millm.engine.faults import Faults
from millm.engine.grammar import Vocabulary
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    DetachSae,
    Done,
    Embed,
    Event,
    Fault,
    Generate,
    Judge,
    LoadModel,
    ModelLoaded,
    Progress,
    SaeAttached,
    SetActiveSteering,
    Started,
    Study,
    Survey,
    UnloadModel,
)
from millm.engine.selftest import choose_runner
from millm.engine.taps import Taps
from millm.engine.watchdog import Watchdog
from millm.engine.work import Post, Work
from millm.errors import ModelNotLoaded


@dataclass(frozen=True)
class Staged:
    """An SAE's files are prepared, or why they cannot be: said by a thread beside the loop."""

    command: AttachSae
    outcome: Path | Exception


Inbox = SimpleQueue[Sequence[Command | Staged]]


class GivenUp(Exception):
    """Whoever asked for the load does not want it any more."""


class Engine:
    def __init__(self, inbox: Inbox, post: Post, watchdog: Watchdog) -> None:
        self._inbox = inbox
        self._post = post
        self._watchdog = watchdog
        self._faults = Faults()
        self._heard: deque[Command | Staged] = deque()
        """Out of the inbox, not yet obeyed."""
        self.work = Work(self._faults, post)

    def run(self) -> None:
        """Never returns; the process ends when the API process does."""
        self._post([Started(platform=platform.facts())])
        while True:
            self.turn()

    def turn(self) -> None:
        """Everything that was said, then one step; waits only when there is nothing to do."""
        self._receive()
        with self._watchdog.step():
            self.work.step()

    def _receive(self) -> None:
        """Everything that waits in the inbox; blocks only when there is nothing to generate."""
        if self.work.scheduler.is_idle and not self._heard:
            self._heard.extend(self._inbox.get())
        self._hear()
        while self._heard:
            self._obey(self._heard.popleft())
            self._hear()

    def _hear(self) -> None:
        while not self._inbox.empty():
            self._heard.extend(self._inbox.get())

    def _obey(self, command: Command | Staged) -> None:
        match command:
            case Generate():
                self.work.scheduler.add(command)
            case Embed() | Judge() | Survey():
                self.work.scheduler.add_text(command)
            case Cancel():
                self.work.scheduler.cancel(command.id)
            case SetActiveSteering():
                self.work.follow(command.steering)
            case _:
                self._change(command)

    def _change(self, command: LoadModel | UnloadModel | AttachSae | DetachSae | Study | Fault | Staged) -> None:
        match command:
            case LoadModel():
                self._answer(command.id, partial(self._load, command))
            case UnloadModel():
                self._answer(command.id, partial(self._unload, command))
            case AttachSae():
                self._stage(command)
            case Staged():
                self._answer(command.command.id, partial(self._attach, command))
            case DetachSae():
                self._answer(command.id, partial(self._detach, command))
            case Fault():
                self._answer(command.id, partial(self._arm, command))
            case _:
                self._answer(command.id, partial(study.answer, self.work.model, self.work.taps, command))

    def _answer(self, command_id: str, work: Callable[[], Event]) -> None:
        """The edge where a command's failure becomes its answer; what was there before goes on serving."""
        try:
            return self._post([work()])
        except Exception as error:  # noqa: BLE001  the loop outlives any command
            answer = failed(command_id, error)
        memory.tidy(self.work.device)  # now that the error, and all that its trace held, is gone
        return self._post([answer])

    # -------------------------------------------------------------------------------------------------- the model

    def _load(self, command: LoadModel) -> Event:
        if command.cpu_threads:
            torch.set_num_threads(command.cpu_threads)
        if command.unload_first:
            self._let_go("the model was unloaded to make room for another")
        self._faults.pass_by("load")
        try:
            model = models.load(command, self._progress(command.id))
            taps = Taps(frozenset(command.special_ids))
            verdict = choose_runner(model, command, taps.steered, taps.attached)
            models.pack(model, command, self._progress(command.id))  # after the test, which compares the last digits
        except GivenUp as error:
            raise ModelNotLoaded("loading was given up") from error
        facts = models.facts(model, verdict, command)
        self._let_go("the model was replaced while this request ran")
        vocabulary = Vocabulary(Path(command.path), facts.vocab_size, facts.stop_ids, command.special_ids)
        self.work = Work(
            self._faults,
            self._post,
            model,
            verdict.runner,
            taps,
            vocabulary,
            verdict.scheduler(),
            device=model.device,
            context=facts.context_length,
            load=command.id,
        )
        self._faults.watch(model)
        return ModelLoaded(id=command.id, facts=replace(facts, memory=memory.use(model, verdict.runner)))

    def _unload(self, command: UnloadModel) -> Event:
        self._let_go("the model was unloaded while this request ran")
        return Done(id=command.id)

    def _let_go(self, why: str) -> None:
        """Of the model and all that belongs to it; its memory is free then."""
        device = self.work.device
        self.work.stop(why)
        self.work = Work(self._faults, self._post, device=device)
        memory.tidy(device)

    # --------------------------------------------------------------------------------------------------- its SAEs

    def _stage(self, command: AttachSae) -> None:
        """Beside the loop while there are answers to give, so that they go on."""
        if self.work.scheduler.is_idle:
            self._answer(command.id, lambda: self._attach(_stage(command)))
        else:
            Thread(target=lambda: self._inbox.put([_stage(command)]), name="millm-staging", daemon=True).start()

    def _attach(self, staged: Staged) -> Event:
        command = staged.command
        if isinstance(staged.outcome, Exception):
            raise staged.outcome
        if self.work.model is None:
            raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
        self._faults.pass_by("attach")
        facts = attach(self.work.model, self.work.taps, command, staged.outcome, self._progress(command.id))
        self.work.attachments_changed()
        return SaeAttached(id=command.id, facts=facts)

    def _detach(self, command: DetachSae) -> Event:
        self.work.taps.detach(command.sae)
        self.work.attachments_changed()
        return Done(id=command.id)

    def _arm(self, fault: Fault) -> Event:
        self._faults.arm(fault)
        return Done(id=fault.id)

    def _progress(self, command_id: str) -> models.OnProgress:
        def report(stage: str, done: int, total: int) -> None:
            self._post([Progress(id=command_id, stage=stage, done=done, total=total)])
            self._hear()
            if Cancel(id=command_id) in self._heard:
                raise GivenUp

        return report


def _stage(command: AttachSae) -> Staged:
    """The edge of its thread: whatever goes wrong is the command's answer."""
    try:
        return Staged(command, stage(command))
    except Exception as error:  # noqa: BLE001  as above
        return Staged(command, error)
