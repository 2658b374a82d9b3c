"""The engine process as it is kept: one model with its SAEs, changed by commands, started again when it dies.

Notices a death within the time of a closed pipe and restores what had been acknowledged. Knows nothing of requests for
answers: `client.py` adds those.

The engine process as the API process holds it: started, sent commands, listened to, ended.

Knows nothing of what commands and events mean.

How often the engine may die and be started as it was: more often, and something is wrong that no restart mends.

What an engine that is started again is told first: the model that was loaded, and the SAEs on it.
"""

import asyncio
import contextlib
import itertools
import multiprocessing
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import structlog
from msgspec.structs import replace

from millm import logs
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
    decode_events,
    encode,
)
from millm.engine.process import main
from millm.errors import EngineCrashed, EngineFailed, MillmError, error_from_code
from millm.hardware import Platform

OnEvents = Callable[[list[EngineEvent]], None]
OnExit = Callable[["EngineProcess"], None]


@dataclass(frozen=True)
class SpawnedProcess:
    """A process that imports torch, and our end of the pipe to it; nobody listens yet."""

    process: BaseProcess
    connection: Connection


def spawn_engine(log_level: str, step_seconds: float) -> SpawnedProcess:
    """Needs no event loop. It ends when this process does."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=main, args=(theirs, log_level, step_seconds), name="millm-engine", daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl+C is not the engine's
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that only the child holds that end, and its death closes the pipe
    return SpawnedProcess(process, ours)


class EngineProcess:
    """One process and its pipe; `on_events` and `on_death` are called on the event loop that made this."""

    def __init__(self, spawned: SpawnedProcess, *, on_events: OnEvents, on_exit: OnExit) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_events, self._on_exit = on_events, on_exit
        self._process, self._connection = spawned.process, spawned.connection
        threading.Thread(target=self._listen, args=(self._connection,), name="millm-engine-events", daemon=True).start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, commands: Sequence[Command]) -> None:
        """All in one message: nothing comes between them. Raises EngineCrashed."""
        try:
            self._connection.send_bytes(encode(commands))
        except OSError as error:
            raise EngineCrashed("the engine has just stopped; it is being restarted, try again") from error

    def kill(self) -> None:
        """Its death is noticed as any other."""
        self._process.kill()

    async def end(self) -> None:
        """The engine keeps nothing that would have to be saved."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._process.terminate()
        self._process.join(3)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _listen(self, connection: Connection) -> None:
        """On a thread of its own, until the pipe closes."""
        try:
            while True:
                self._loop.call_soon_threadsafe(self._on_events, decode_events(connection.recv_bytes()))
        except (EOFError, OSError):
            connection.close()
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._on_exit, self)


MAX_CRASHES = 3
CRASH_WINDOW_SECONDS = 600.0
CRASH_LIMIT_MESSAGE = f"the engine died {MAX_CRASHES} times within {CRASH_WINDOW_SECONDS / 60:.0f} minutes"


class CrashLimiter:
    def __init__(self) -> None:
        self._crash_times: deque[float] = deque(maxlen=MAX_CRASHES)

    def record_crash(self) -> bool:
        """It has just died: was that once too often? After one that was, counting begins again."""
        now = time.monotonic()
        self._crash_times.append(now)
        if len(self._crash_times) < MAX_CRASHES or now - self._crash_times[0] > CRASH_WINDOW_SECONDS:
            return False
        self._crash_times.clear()
        return True


class EngineSnapshot:
    """Empty, until something has been acknowledged."""

    def __init__(self) -> None:
        self.model: LoadModel | None = None
        self.saes: dict[str, AttachSae] = {}

    def copy(self) -> "EngineSnapshot":
        twin = EngineSnapshot()
        twin.model, twin.saes = self.model, dict(self.saes)
        return twin

    @property
    def commands(self) -> list[LoadModel | AttachSae]:
        """In the order in which they are given."""
        return [self.model, *self.saes.values()] if self.model else []

    def record_load(self, command: LoadModel) -> None:
        self.model = replace(command, unload_first=False)
        self.saes = {}

    def record_attach(self, command: AttachSae) -> None:
        if command.replaces:
            self.saes.pop(command.replaces, None)
        self.saes[command.sae] = replace(command, replaces=None)

    def record_detach(self, sae: str) -> None:
        self.saes.pop(sae, None)


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
