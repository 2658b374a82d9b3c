"""Runs the engine process: sends commands, delivers events, and restarts and restores a process that died."""

import asyncio
import contextlib
import itertools
import multiprocessing
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import structlog
from msgspec.structs import replace

from millm import logs
from millm.engine.messages import (
    AttachSae,
    Command,
    CommandFailed,
    ControlCommand,
    DetachSae,
    EngineDegraded,
    EngineEvent,
    InjectFault,
    LoadModel,
    LogLine,
    ModelFacts,
    ModelLoaded,
    Progress,
    SaeAttached,
    SaeFacts,
    SequenceEvent,
    Started,
    Token,
    UnloadModel,
    decode_events,
    encode,
)
from millm.engine.process import main
from millm.errors import EngineCrashed, EngineFailed, MillmError, error_from_code
from millm.hardware import Platform

log = structlog.get_logger()
ProgressCallback = Callable[[Progress], None]
EngineStatus = Literal["stopped", "ready", "restarting", "down"]
LOAD_STALL_SECONDS = 300.0  # A load that reports no progress for this long is ended
POLL_SECONDS = 0.02
MAX_CRASHES = 3
CRASH_WINDOW_SECONDS = 600.0
CRASH_LIMIT_MESSAGE = f"the engine died {MAX_CRASHES} times within {CRASH_WINDOW_SECONDS / 60:.0f} minutes"


class EngineSupervisor(ABC):
    """Lives on one event loop."""

    def __init__(self, *, step_seconds: float, log_level: str) -> None:
        self.status: EngineStatus = "stopped"
        self.degraded_reason: str | None = None
        """Why the engine turned the SAEs off; reset when a model is loaded or an SAE attached."""
        self.on_degraded: Callable[[], None] = lambda: None
        self.on_model_lost: Callable[[MillmError], None] = lambda _: None
        """Called when a model is not restored: after too many crashes, or because its restore failed."""
        self.on_status_change: Callable[[], None] = lambda: None
        self.platform: Platform | None = None  # None until the engine has started
        self.restarts = 0
        self._spawn_arguments = (log_level, step_seconds)
        self._ids = itertools.count(1)
        self._pending_commands: dict[str, asyncio.Queue[EngineEvent]] = {}
        self._snapshot = EngineSnapshot()
        self._crash_limiter = CrashLimiter()
        self._process: EngineProcess | None = None
        self._restore_task: asyncio.Task[None] | None = None

    @abstractmethod
    def _handle_sequence_event(self, event: SequenceEvent) -> None: ...

    @abstractmethod
    def _fail_sequences(self) -> None:
        """End every sequence with EngineCrashed."""

    @abstractmethod
    def _log_context(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Fields to add to a line of the engine's log."""

    @abstractmethod
    def _on_model_change(self) -> None:
        """Called when another model was loaded, or none is left."""

    async def start(self, spawned: "SpawnedProcess | None" = None) -> None:
        """Connect to `spawned` or to a new process, which imports torch in the background."""
        self._connect_process(spawned or spawn_engine(*self._spawn_arguments))
        self.status = "ready"

    async def close(self) -> None:
        """End the engine process; sequences in flight end with EngineCrashed."""
        self.status = "stopped"
        if self._restore_task:
            self._restore_task.cancel()
        if self._process:
            await self._process.end()
        self._fail_all()

    def kill(self) -> None:
        """Kill an engine that hangs; a new one is started and restored."""
        if self._process:
            self._process.kill()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def wait_for_platform(self) -> Platform:
        """Raises EngineCrashed."""
        while self.platform is None:
            if self.status in ("stopped", "down"):
                raise EngineCrashed("the engine does not run; the server's log has the reason")
            await asyncio.sleep(POLL_SECONDS)
        return self.platform

    @property
    def snapshot(self) -> "EngineSnapshot":
        return EngineSnapshot(self._snapshot.model, dict(self._snapshot.saes))

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._ids)}"

    async def load(self, command: LoadModel, on_progress: ProgressCallback | None = None) -> ModelFacts:
        """Raises MillmError; the old model then stays loaded, unless `unload_first` is set."""
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
        """Sequences in flight end with ModelNotLoaded."""
        await self.wait_until_restored()
        with contextlib.suppress(EngineCrashed):  # a process that died holds no model
            await self._request(UnloadModel(id=self.new_id("unload")))
        self._clear_model_state()

    async def attach(self, command: AttachSae, on_progress: ProgressCallback | None = None) -> SaeFacts:
        await self.wait_until_restored()
        event = await self._request(command, on_progress)
        assert isinstance(event, SaeAttached)
        self._snapshot.record_attach(command)
        self.degraded_reason = None
        return event.facts

    async def detach(self, sae: str) -> None:
        """Sequences in flight continue with the SAE. Raises SaeNotFound."""
        await self.wait_until_restored()
        with contextlib.suppress(EngineCrashed):  # the restore leaves the SAE out
            await self._request(DetachSae(id=self.new_id("detach"), sae=sae))
        self._snapshot.record_detach(sae)

    async def restore_snapshot(self, target: "EngineSnapshot") -> None:
        """Load the snapshot's model and SAEs under their old ids. Unloads and raises MillmError on failure."""
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
        """Raises InvalidRequest unless the engine was started for tests."""
        await self._request(fault)

    async def wait_until_restored(self) -> None:
        """Wait for a crashed engine to be restored, so that commands do not interleave with the restore."""
        while self.status == "restarting":
            await asyncio.sleep(POLL_SECONDS)

    def _connect_process(self, spawned: "SpawnedProcess") -> None:
        self._process = EngineProcess(spawned, on_events=self._handle_events, on_exit=self._on_process_exit)

    def _handle_events(self, events: list[EngineEvent]) -> None:
        for event in events:
            match event:
                case Token():  # first, because it is the most frequent
                    self._handle_sequence_event(event)
                case EngineDegraded():
                    self._degrade(event.reason)
                case Started():
                    self.platform = event.platform
                case LogLine():
                    fields = event.fields | self._log_context(event.fields)
                    logs.write_forwarded(event.level, event.event, event.time, fields)
                case _ if queue := self._pending_commands.get(event.id):
                    queue.put_nowait(event)
                case _ if isinstance(event, SequenceEvent):  # all others belong to callers that were cancelled
                    self._handle_sequence_event(event)

    def _send(self, *commands: Command) -> None:
        assert self._process is not None
        self._process.send(commands)

    async def _request(
        self, command: ControlCommand, on_progress: ProgressCallback | None = None, stall_seconds: float | None = None
    ) -> EngineEvent:
        """The command's result. Raises MillmError, or TimeoutError after `stall_seconds` without an event."""
        queue: asyncio.Queue[EngineEvent] = asyncio.Queue()
        self._pending_commands[command.id] = queue
        try:
            self._send(command)
            while isinstance(event := await asyncio.wait_for(queue.get(), stall_seconds), Progress):
                if on_progress:
                    on_progress(event)
        finally:
            del self._pending_commands[command.id]
        raise_failure(event)
        return event

    def _degrade(self, reason: str) -> None:
        """The SAEs stay off, also after a restart of the engine."""
        log.warning("engine.degraded", reason=reason)
        self.degraded_reason = reason
        self._snapshot.saes.clear()
        self.on_degraded()

    def _clear_model_state(self) -> None:
        self._snapshot = EngineSnapshot()
        self.degraded_reason = None
        self._on_model_change()

    def _on_process_exit(self, process: "EngineProcess") -> None:
        """The pipe closed: fail everything in flight and restart, with less after too many crashes."""
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
        """Drop the SAEs, or else the model. False when neither is left to drop."""
        if self._snapshot.saes:
            self._degrade(f"{CRASH_LIMIT_MESSAGE}: every SAE was detached; attach it again to steer")
        elif self._snapshot.model:
            self._handle_model_lost(
                EngineCrashed(f"{CRASH_LIMIT_MESSAGE}, and no model is loaded by itself any more; load one")
            )
        else:
            return False
        return True

    def _handle_model_lost(self, error: MillmError) -> None:
        log.error("engine.emptied", reason=error.message)
        self._clear_model_state()
        self.on_model_lost(error)

    async def _restore(self) -> None:
        """Start a process and load the same model and SAEs under the ids that requests use."""
        self._connect_process(spawn_engine(*self._spawn_arguments))
        try:
            for command in self._snapshot.commands:
                await self._request(command)
        except EngineCrashed:
            return  # `_on_process_exit` has started another restore
        except MillmError as error:
            self._handle_model_lost(error)
        self._set_status("ready")
        log.info("engine.restored", pid=self.pid)

    def _set_status(self, status: EngineStatus) -> None:
        self.status = status
        self.on_status_change()

    def _fail_all(self) -> None:
        post_failure(self._pending_commands, engine_crashed_error())
        self._fail_sequences()


def engine_crashed_error() -> EngineCrashed:
    return EngineCrashed("the engine stopped while this request ran; it is being restarted, try again")


def post_failure(queues: Mapping[str, asyncio.Queue[Any]], error: MillmError) -> None:
    """End each command or sequence with `error`; `queues` by its id."""
    for id, queue in queues.items():
        queue.put_nowait(CommandFailed(id=id, code=error.code, message=error.message))


def raise_failure(event: EngineEvent) -> None:
    """Raises the error of a `CommandFailed`."""
    if isinstance(event, CommandFailed):
        raise error_from_code(event.code, event.message, event.param)


@dataclass
class EngineSnapshot:
    """The acknowledged model and SAEs, which a restarted engine gets again."""

    model: LoadModel | None = None
    saes: dict[str, AttachSae] = field(default_factory=dict)

    @property
    def commands(self) -> list[LoadModel | AttachSae]:
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


class CrashLimiter:
    def __init__(self) -> None:
        self._crash_times: deque[float] = deque(maxlen=MAX_CRASHES)

    def record_crash(self) -> bool:
        """True on the third crash within 10 minutes; the count then restarts."""
        now = time.monotonic()
        self._crash_times.append(now)
        if len(self._crash_times) < MAX_CRASHES or now - self._crash_times[0] > CRASH_WINDOW_SECONDS:
            return False
        self._crash_times.clear()
        return True


@dataclass(frozen=True)
class SpawnedProcess:
    """A process that imports torch, and the API process's end of the pipe."""

    process: BaseProcess
    connection: Connection


def spawn_engine(log_level: str, step_seconds: float) -> SpawnedProcess:
    """Needs no event loop. The process ends with this one."""
    context = multiprocessing.get_context("spawn")
    api_end, engine_end = context.Pipe()
    process = context.Process(target=main, args=(engine_end, log_level, step_seconds), name="millm-engine", daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: the engine ignores Ctrl+C
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    engine_end.close()  # only the child holds that end, so its death closes the pipe
    return SpawnedProcess(process, api_end)


class EngineProcess:
    """One process and its pipe; both callbacks run on the event loop that constructed this object."""

    def __init__(
        self,
        spawned: SpawnedProcess,
        *,
        on_events: Callable[[list[EngineEvent]], None],
        on_exit: Callable[["EngineProcess"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_events, self._on_exit = on_events, on_exit
        self._process, self._connection = spawned.process, spawned.connection
        threading.Thread(target=self._listen, args=(self._connection,), name="millm-engine-events", daemon=True).start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, commands: Sequence[Command]) -> None:
        """Send all in one message, so that no other command comes between them. Raises EngineCrashed."""
        try:
            self._connection.send_bytes(encode(commands))
        except OSError as error:
            raise EngineCrashed("the engine has just stopped; it is being restarted, try again") from error

    def kill(self) -> None:
        self._process.kill()

    async def end(self) -> None:
        """Terminate the process, which has no state to save; kill it after 3 s."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._process.terminate()
        self._process.join(3)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _listen(self, connection: Connection) -> None:
        """Thread: pass events on until the pipe closes."""
        try:
            while True:
                self._loop.call_soon_threadsafe(self._on_events, decode_events(connection.recv_bytes()))
        except (EOFError, OSError):
            connection.close()
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._on_exit, self)
