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
from millm.engine.attach import attach_sae, stage_sae
from millm.engine.failing import failure_event
from millm.engine.faults import FaultInjector
from millm.engine.grammar import GrammarVocabulary
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    DetachSae,
    Done,
    Embed,
    EngineEvent,
    FeatureQuery,
    Generate,
    InjectFault,
    LoadModel,
    ModelLoaded,
    Progress,
    SaeAttached,
    ScanFeatures,
    ScoreAnswer,
    SetActiveSteering,
    Started,
    UnloadModel,
)
from millm.engine.selftest import choose_runner
from millm.engine.taps import AttachedSaes
from millm.engine.watchdog import Watchdog
from millm.engine.work import ModelExecutor, SendEvents
from millm.errors import ModelNotLoaded


@dataclass(frozen=True)
class StagedSae:
    """An SAE's files are prepared, or why they cannot be: said by a thread beside the loop."""

    command: AttachSae
    outcome: Path | Exception


CommandQueue = SimpleQueue[Sequence[Command | StagedSae]]


class LoadCancelled(Exception):
    """Whoever asked for the load does not want it any more."""


class EngineCore:
    def __init__(self, inbox: CommandQueue, send_events: SendEvents, watchdog: Watchdog) -> None:
        self._inbox = inbox
        self._send_events = send_events
        self._watchdog = watchdog
        self._fault_injector = FaultInjector()
        self._pending: deque[Command | StagedSae] = deque()
        """Out of the inbox, not yet obeyed."""
        self.executor = ModelExecutor(self._fault_injector, send_events)

    def run(self) -> None:
        """Never returns; the process ends when the API process does."""
        self._send_events([Started(platform=platform.platform_facts())])
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Everything that was said, then one step; waits only when there is nothing to do."""
        self._receive()
        with self._watchdog.step():
            self.executor.step()

    def _receive(self) -> None:
        """Everything that waits in the inbox; blocks only when there is nothing to generate."""
        if self.executor.scheduler.is_idle and not self._pending:
            self._pending.extend(self._inbox.get())
        self._drain_inbox()
        while self._pending:
            self._handle(self._pending.popleft())
            self._drain_inbox()

    def _drain_inbox(self) -> None:
        while not self._inbox.empty():
            self._pending.extend(self._inbox.get())

    def _handle(self, command: Command | StagedSae) -> None:
        match command:
            case Generate():
                self.executor.scheduler.add(command)
            case Embed() | ScoreAnswer() | ScanFeatures():
                self.executor.scheduler.add_text(command)
            case Cancel():
                self.executor.scheduler.cancel(command.id)
            case SetActiveSteering():
                self.executor.set_active_steering(command.steering)
            case _:
                self._handle_control(command)

    def _handle_control(
        self, command: LoadModel | UnloadModel | AttachSae | DetachSae | FeatureQuery | InjectFault | StagedSae
    ) -> None:
        match command:
            case LoadModel():
                self._reply(command.id, partial(self._load, command))
            case UnloadModel():
                self._reply(command.id, partial(self._unload, command))
            case AttachSae():
                self._stage_and_attach(command)
            case StagedSae():
                self._reply(command.command.id, partial(self._attach, command))
            case DetachSae():
                self._reply(command.id, partial(self._detach, command))
            case InjectFault():
                self._reply(command.id, partial(self._arm, command))
            case _:
                self._reply(
                    command.id, partial(study.answer_query, self.executor.model, self.executor.attached_saes, command)
                )

    def _reply(self, command_id: str, compute_event: Callable[[], EngineEvent]) -> None:
        """The edge where a command's failure becomes its answer; what was there before goes on serving."""
        try:
            return self._send_events([compute_event()])
        except Exception as error:  # noqa: BLE001  the loop outlives any command
            answer = failure_event(command_id, error)
        memory.collect_garbage(self.executor.device)  # now that the error, and all that its trace held, is gone
        return self._send_events([answer])

    # -------------------------------------------------------------------------------------------------- the model

    def _load(self, command: LoadModel) -> EngineEvent:
        if command.cpu_threads:
            torch.set_num_threads(command.cpu_threads)
        if command.unload_first:
            self._release_model("the model was unloaded to make room for another")
        self._fault_injector.fail_if_armed("load")
        try:
            model = models.load_model(command, self._progress(command.id))
            taps = AttachedSaes(frozenset(command.special_ids))
            verdict = choose_runner(model, command, taps.steer_mask, taps.active_hooks)
            models.pack_int8(
                model, command, self._progress(command.id)
            )  # after the test, which compares the last digits
        except LoadCancelled as error:
            raise ModelNotLoaded("loading was given up") from error
        facts = models.model_facts(model, verdict, command)
        self._release_model("the model was replaced while this request ran")
        vocabulary = GrammarVocabulary(Path(command.path), facts.vocab_size, facts.stop_ids, command.special_ids)
        self.executor = ModelExecutor(
            self._fault_injector,
            self._send_events,
            model,
            verdict.runner,
            taps,
            vocabulary,
            verdict.scheduler(),
            device=model.device,
            max_text_tokens=facts.context_length,
            load_id=command.id,
        )
        self._fault_injector.install_hook(model)
        return ModelLoaded(id=command.id, facts=replace(facts, memory=memory.memory_use(model, verdict.runner)))

    def _unload(self, command: UnloadModel) -> EngineEvent:
        self._release_model("the model was unloaded while this request ran")
        return Done(id=command.id)

    def _release_model(self, reason: str) -> None:
        """Of the model and all that belongs to it; its memory is free then."""
        device = self.executor.device
        self.executor.stop(reason)
        self.executor = ModelExecutor(self._fault_injector, self._send_events, device=device)
        memory.collect_garbage(device)

    # --------------------------------------------------------------------------------------------------- its SAEs

    def _stage_and_attach(self, command: AttachSae) -> None:
        """Beside the loop while there are answers to give, so that they go on."""
        if self.executor.scheduler.is_idle:
            self._reply(command.id, lambda: self._attach(_stage_or_error(command)))
        else:
            Thread(
                target=lambda: self._inbox.put([_stage_or_error(command)]), name="millm-staging", daemon=True
            ).start()

    def _attach(self, staged: StagedSae) -> EngineEvent:
        command = staged.command
        if isinstance(staged.outcome, Exception):
            raise staged.outcome
        if self.executor.model is None:
            raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
        self._fault_injector.fail_if_armed("attach")
        facts = attach_sae(
            self.executor.model, self.executor.attached_saes, command, staged.outcome, self._progress(command.id)
        )
        self.executor.on_attachments_changed()
        return SaeAttached(id=command.id, facts=facts)

    def _detach(self, command: DetachSae) -> EngineEvent:
        self.executor.attached_saes.detach(command.sae)
        self.executor.on_attachments_changed()
        return Done(id=command.id)

    def _arm(self, fault: InjectFault) -> EngineEvent:
        self._fault_injector.arm(fault)
        return Done(id=fault.id)

    def _progress(self, command_id: str) -> models.OnProgress:
        def report(stage: str, done: int, total: int) -> None:
            self._send_events([Progress(id=command_id, stage=stage, done=done, total=total)])
            self._drain_inbox()
            if Cancel(id=command_id) in self._pending:
                raise LoadCancelled

        return report


def _stage_or_error(command: AttachSae) -> StagedSae:
    """The edge of its thread: whatever goes wrong is the command's answer."""
    try:
        return StagedSae(command, stage_sae(command))
    except Exception as error:  # noqa: BLE001  as above
        return StagedSae(command, error)
