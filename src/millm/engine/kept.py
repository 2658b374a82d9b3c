"""The engine process as it is kept: one model with its SAEs, changed by commands, started again when it dies.

Notices a death within the time of a closed pipe and restores what had been acknowledged. Knows nothing of requests for
answers: `client.py` adds those.
"""

import asyncio
import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import structlog

from millm import logs
from millm.engine.child import EngineProcess, SpawnedProcess, spawn_engine
from millm.engine.deaths import CRASH_LIMIT_MESSAGE, CrashLimiter
from millm.engine.messages import (
    AnswerScored,
    AttachSae,
    Command,
    CommandFailed,
    Decomposed,
    DetachSae,
    DirectionsComputed,
    Done,
    EngineDegraded,
    EngineEvent,
    FeatureDescribed,
    FeatureQuery,
    FeatureQueryResult,
    FeaturesScanned,
    Finished,
    InjectFault,
    LoadModel,
    LogLine,
    ModelFacts,
    ModelLoaded,
    Progress,
    PromptScores,
    SaeAttached,
    SaeFacts,
    Started,
    TextEmbedded,
    Token,
    UnloadModel,
)
from millm.engine.restorable import EngineSnapshot
from millm.errors import EngineCrashed, EngineFailed, MillmError, error_from_code
from millm.hardware import Platform

log = structlog.get_logger()

OnProgress = Callable[[Progress], None]
EngineStatus = Literal["stopped", "ready", "restarting", "down"]
ControlCommand = LoadModel | UnloadModel | AttachSae | DetachSae | FeatureQuery | InjectFault
"""A command that is answered once, and may tell how far it has come before."""
ControlEvent = ModelLoaded | SaeAttached | FeatureQueryResult | Done | CommandFailed
SequenceEvent = PromptScores | Token | Finished | TextEmbedded | AnswerScored | FeaturesScanned | CommandFailed
ControlEventQueue = asyncio.Queue[Progress | ControlEvent]

LOAD_STALL_SECONDS = 300.0
"""A load that has told nothing for so long hangs."""
POLL_SECONDS = 0.02
"""How often it is looked whether what is waited for is so."""


class EngineSupervisor(ABC):
    """Lives on one event loop."""

    def __init__(self, *, step_seconds: float, log_level: str) -> None:
        self.status: EngineStatus = "stopped"
        self.degraded_reason: str | None = None
        """Why the engine turned the SAEs off to go on answering, until a model is loaded or an SAE attached."""
        self.on_degraded: Callable[[], None] = lambda: None
        self.on_model_lost: Callable[[MillmError], None] = lambda _: None
        """The model is gone and does not come back by itself: the engine died too often, or could not restore it."""
        self.on_status_change: Callable[[], None] = lambda: None
        self.platform: Platform | None = None
        """What the engine runs on, once it has started."""
        self._spawn_arguments = (log_level, step_seconds)
        self._ids = itertools.count(1)
        self._pending_commands: dict[str, ControlEventQueue] = {}
        self._snapshot = EngineSnapshot()
        self._crash_limiter = CrashLimiter()
        self.restarts = 0
        """Times that it died and was started again."""
        self._process: EngineProcess | None = None
        self._restore_task: asyncio.Task[None] | None = None

    # --------------------------------------------------------------------------------------- what is added to it

    @abstractmethod
    def _handle_sequence_event(self, event: SequenceEvent) -> None:
        """An event of an answer that is being made."""

    @abstractmethod
    def _fail_sequences(self) -> None:
        """Every answer that is being made ends with EngineCrashed."""

    @abstractmethod
    def _log_context(self, fields: dict[str, Any]) -> dict[str, Any]:
        """What is to be added to a line of the engine's log: whose answer it is about."""

    @abstractmethod
    def _on_model_change(self) -> None:
        """Another model, or none."""

    # ------------------------------------------------------------------------------------------------ life cycle

    async def start(self, spawned: SpawnedProcess | None = None) -> None:
        """Spawn the engine process, unless one was; it imports torch while we go on."""
        self._connect_process(spawned or spawn_engine(*self._spawn_arguments))
        self.status = "ready"

    async def close(self) -> None:
        """End the engine process; what is in flight ends with EngineCrashed."""
        self.status = "stopped"
        if self._restore_task:
            self._restore_task.cancel()
        if self._process:
            await self._process.end()
        self._fail_all()

    def kill(self) -> None:
        """An engine that hangs: it is started again as it was."""
        if self._process:
            self._process.kill()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def wait_for_platform(self) -> Platform:
        """What the engine runs on, as soon as it has said so. Raises EngineCrashed."""
        while self.platform is None:
            if self.status in ("stopped", "down"):
                raise EngineCrashed("the engine does not run; the server's log has the reason")
            await asyncio.sleep(POLL_SECONDS)
        return self.platform

    @property
    def snapshot(self) -> EngineSnapshot:
        """What an engine would be told to be as this one."""
        return self._snapshot.copy()

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._ids)}"

    # --------------------------------------------------------------------------------------------------- changes

    async def load(self, command: LoadModel, on_progress: OnProgress | None = None) -> ModelFacts:
        """Raises what the engine refuses; the model of before goes on serving then, unless it had to go first."""
        await self.wait_until_restored()
        try:
            event = await self._request(command, on_progress, stall_seconds=LOAD_STALL_SECONDS)
        except EngineCrashed:
            raise
        except TimeoutError as error:
            self.kill()
            raise EngineFailed(f"loading made no progress for {LOAD_STALL_SECONDS:.0f} s and was ended") from error
        except MillmError:
            if command.unload_first:
                self._clear_model_state()
            raise
        assert isinstance(event, ModelLoaded)
        self._clear_model_state()
        self._snapshot.record_load(command)
        self._on_model_change()
        return event.facts

    async def unload(self) -> None:
        """What is in flight ends with ModelNotLoaded."""
        await self.wait_until_restored()
        with contextlib.suppress(EngineCrashed):  # and all that it held has gone with it
            await self._request(UnloadModel(id=self.new_id("unload")))
        self._clear_model_state()

    async def attach(self, command: AttachSae, on_progress: OnProgress | None = None) -> SaeFacts:
        await self.wait_until_restored()
        event = await self._request(command, on_progress)
        assert isinstance(event, SaeAttached)
        self._snapshot.record_attach(command)
        self.degraded_reason = None
        return event.facts

    async def detach(self, sae: str) -> None:
        """What was begun with it ends with it. Raises SaeNotFound."""
        await self.wait_until_restored()
        with contextlib.suppress(EngineCrashed):  # it comes back without it
            await self._request(DetachSae(id=self.new_id("detach"), sae=sae))
        self._snapshot.record_detach(sae)

    async def restore_snapshot(self, target: EngineSnapshot) -> None:
        """The same model with the same SAEs, under the ids that they had, or none.

        Raises as `load` and `attach` do; nothing is loaded then.
        """
        if target.model is None:
            await self.unload()
            return
        try:
            await self.load(target.model)
            for sae in target.saes.values():
                await self.attach(sae)
        except MillmError:
            await self.unload()
            raise

    async def inject(self, fault: InjectFault) -> None:
        """A failure on order. Raises InvalidRequest unless the engine was started for tests."""
        await self._request(fault)

    async def wait_until_restored(self) -> None:
        """Until an engine that died is as it was: what is asked of it before would come between."""
        while self.status == "restarting":
            await asyncio.sleep(POLL_SECONDS)

    # -------------------------------------------------------------------------------------------------- plumbing

    def _connect_process(self, spawned: SpawnedProcess) -> None:
        self._process = EngineProcess(spawned, on_events=self._handle_events, on_exit=self._on_process_exit)

    def _handle_events(self, events: list[EngineEvent]) -> None:
        for event in events:
            match event:
                case EngineDegraded():
                    self._degrade(event.reason)
                case Started():
                    self.platform = event.platform
                case LogLine():
                    logs.write_forwarded(
                        event.level, event.event, event.time, event.fields | self._log_context(event.fields)
                    )
                case Progress() | ModelLoaded() | SaeAttached() | Done():
                    self._deliver_result(event)
                case FeatureDescribed() | DirectionsComputed() | Decomposed():
                    self._deliver_result(event)
                case CommandFailed() if event.id in self._pending_commands:
                    self._deliver_result(event)
                case _:
                    self._handle_sequence_event(event)

    def _deliver_result(self, event: Progress | ControlEvent) -> None:
        """Whoever asked may have gone."""
        if inbox := self._pending_commands.get(event.id):
            inbox.put_nowait(event)

    def _send(self, *commands: Command) -> None:
        assert self._process is not None
        self._process.send(commands)

    async def _request(
        self, command: ControlCommand, on_progress: OnProgress | None = None, stall_seconds: float | None = None
    ) -> ControlEvent:
        """`stall`: seconds without a word after which TimeoutError is raised."""
        inbox: ControlEventQueue = asyncio.Queue()
        self._pending_commands[command.id] = inbox
        try:
            self._send(command)
            while isinstance(event := await asyncio.wait_for(inbox.get(), stall_seconds), Progress):
                if on_progress:
                    on_progress(event)
        finally:
            del self._pending_commands[command.id]
        raise_failure(event)
        return event

    def _degrade(self, reason: str) -> None:
        """Nothing comes back by itself, also not with a restart of the engine."""
        log.warning("engine.degraded", reason=reason)
        self.degraded_reason = reason
        self._snapshot.saes.clear()
        self.on_degraded()

    def _clear_model_state(self) -> None:
        self._snapshot = EngineSnapshot()
        self.degraded_reason = None
        self._on_model_change()

    # ---------------------------------------------------------------------------------------- death and restart

    def _on_process_exit(self, process: EngineProcess) -> None:
        """The pipe closed: fail what was in flight, then start again, with less when it dies all the time."""
        if self.status == "stopped" or process is not self._process:
            return
        log.error("engine.died", pid=self.pid)
        self._fail_all()
        if self._crash_limiter.record_crash() and not self._reduce_snapshot():
            log.error("engine.down", reason=CRASH_LIMIT_MESSAGE)
            self._set_status("down")
        else:
            self._set_status("restarting")
            self.restarts += 1
            self._restore_task = asyncio.create_task(self._restore())

    def _reduce_snapshot(self) -> bool:
        """First without SAEs, then without a model: people choose what to try next. False: there is no less."""
        has_saes, has_model = bool(self._snapshot.saes), self._snapshot.model is not None
        if has_saes:
            self._degrade(f"{CRASH_LIMIT_MESSAGE}: every SAE was detached; attach it again to steer")
        elif has_model:
            self._handle_model_lost(
                EngineCrashed(f"{CRASH_LIMIT_MESSAGE}, and no model is loaded by itself any more; load one")
            )
        return has_saes or has_model

    def _handle_model_lost(self, error: MillmError) -> None:
        """Of the model, nothing comes back by itself."""
        log.error("engine.emptied", reason=error.message)
        self._clear_model_state()
        self.on_model_lost(error)

    async def _restore(self) -> None:
        """A new process with the same model and the same SAEs, under the ids that requests know them by."""
        self._connect_process(spawn_engine(*self._spawn_arguments))
        try:
            for command in self._snapshot.commands:
                await self._request(command)
        except EngineCrashed:
            return  # it died again while restoring: `_mourn` has taken over
        except MillmError as error:
            self._handle_model_lost(error)
        self._set_status("ready")
        log.info("engine.restored", pid=self.pid)

    def _set_status(self, status: EngineStatus) -> None:
        self.status = status
        self.on_status_change()

    def _fail_all(self) -> None:
        failed = engine_crashed_error()
        for id, inbox in self._pending_commands.items():
            inbox.put_nowait(CommandFailed(id=id, code=failed.code, message=failed.message))
        self._fail_sequences()


def engine_crashed_error() -> EngineCrashed:
    return EngineCrashed("the engine stopped while this request ran; it is being restarted, try again")


def raise_failure(event: EngineEvent) -> None:
    """Raises the error that a `Failed` tells of."""
    if isinstance(event, CommandFailed):
        raise error_from_code(event.code, event.message, event.param)
