"""The API process's end of the pipe: commands out, an async iterator of events per request back.

Owns the engine process: starts it, notices its death within the time of a closed pipe, fails what was in flight,
starts another and restores what had been acknowledged.
"""

import asyncio
import contextlib
import itertools
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from multiprocessing.connection import Connection
from typing import Literal

import structlog
from msgspec.structs import replace

from millm.engine import process
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    Degraded,
    Event,
    Failed,
    Fault,
    Finished,
    Generate,
    LoadModel,
    ModelFacts,
    ModelLoaded,
    Progress,
    SaeAttached,
    SaeFacts,
    Token,
    decode_events,
    encode,
)
from millm.errors import EngineCrashed, MillmError, ModelNotLoaded, QueueFull, from_code

log = structlog.get_logger()

OnProgress = Callable[[Progress], None]
Status = Literal["stopped", "ready", "restarting", "down"]

RESTARTS = 3
RESTART_WINDOW_SECONDS = 60.0
"""An engine that dies more often than this is not started again: something is wrong that a restart does not mend."""


class EngineClient:
    """Lives on one event loop; only `_listen` runs on a thread of its own."""

    def __init__(
        self, *, max_queue: int, step_seconds: float = 600.0, log_level: str = "info", log_format: str = "auto"
    ) -> None:
        self.status: Status = "stopped"
        self.degraded: str | None = None
        """What the engine gave up to go on answering, until a model is loaded."""
        self._max_queue = max_queue
        self._arguments = (log_level, log_format, step_seconds)
        self._ids = itertools.count(1)
        self._inboxes: dict[str, asyncio.Queue[Event]] = {}
        self._restorable: list[LoadModel | AttachSae] = []
        self._deaths: deque[float] = deque(maxlen=RESTARTS)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._restoring: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------------------------------------- life cycle

    async def start(self) -> None:
        """Spawn the engine process; it imports torch while we go on."""
        self._loop = asyncio.get_running_loop()
        self._spawn()
        self.status = "ready"

    async def close(self) -> None:
        """End the engine process; what is in flight ends with EngineCrashed."""
        self.status = "stopped"
        if self._restoring:
            self._restoring.cancel()
        if self._process:
            await asyncio.to_thread(_end, self._process)
        self._fail_all()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def in_flight(self) -> int:
        return len(self._inboxes)

    # ------------------------------------------------------------------------------------------------ commands

    async def load(self, command: LoadModel, on_progress: OnProgress | None = None) -> ModelFacts:
        event = await self._ask(command, on_progress)
        assert isinstance(event, ModelLoaded)
        self._restorable = [command]
        self.degraded = None
        return event.facts

    async def attach(self, command: AttachSae, on_progress: OnProgress | None = None) -> SaeFacts:
        event = await self._ask(command, on_progress)
        assert isinstance(event, SaeAttached)
        self._restorable.append(command)
        return event.facts

    async def inject(self, fault: Fault) -> None:
        """A failure on order. Raises InvalidRequest unless the engine was started for tests."""
        await self._ask(fault, None)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._ids)}"

    async def generate(self, request: Generate) -> AsyncGenerator[Token | Finished]:
        """Tokens, then one `Finished`. Raises MillmError; closing the iterator cancels at the next step."""
        self._check_ready()
        if len(self._inboxes) >= self._max_queue:
            raise QueueFull(f"{self._max_queue} requests are waiting already; try again in a moment")
        inbox = self._open(request.id)
        event: Event | None = None
        try:
            self._send(request)
            while not isinstance(event, Finished):
                event = _or_raise(await inbox.get())
                assert isinstance(event, Token | Finished)
                yield event
        finally:
            del self._inboxes[request.id]
            if not isinstance(event, Finished):  # the caller left before the end
                self.cancel(request.id)

    # ------------------------------------------------------------------------------------------------ plumbing

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = context.Process(target=process.main, args=(theirs, *self._arguments), name="millm-engine", daemon=True)
        child.start()
        theirs.close()  # so that only the child holds that end, and its death closes the pipe
        self._process, self._connection = child, ours
        threading.Thread(target=self._listen, args=(ours,), name="millm-engine-events", daemon=True).start()

    def _listen(self, connection: Connection) -> None:
        try:
            while True:
                events = decode_events(connection.recv_bytes())
                self._loop.call_soon_threadsafe(self._deliver, events)
        except (EOFError, OSError):
            connection.close()
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._mourn, connection)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Degraded):
                self.degraded = event.reason
            elif inbox := self._inboxes.get(event.id):
                inbox.put_nowait(event)

    def _open(self, request_id: str) -> asyncio.Queue[Event]:
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._inboxes[request_id] = inbox
        return inbox

    def _send(self, command: Command) -> None:
        assert self._connection is not None
        try:
            self._connection.send_bytes(encode([command]))
        except OSError as error:
            raise EngineCrashed("the engine has just stopped; it is being restarted, try again") from error

    def cancel(self, request_id: str) -> None:
        """End a sequence at the next step; whoever iterates over it still gets its `Finished`."""
        with contextlib.suppress(EngineCrashed):  # then there is nothing left to cancel
            self._send(Cancel(id=request_id))

    async def _ask(self, command: LoadModel | AttachSae | Fault, on_progress: OnProgress | None) -> Event:
        inbox = self._open(command.id)
        try:
            self._send(command)
            while isinstance(event := _or_raise(await inbox.get()), Progress):
                if on_progress:
                    on_progress(event)
            return event
        finally:
            del self._inboxes[command.id]

    def _check_ready(self) -> None:
        if self.status == "restarting":
            raise ModelNotLoaded("the engine stopped and is being restarted; try again in a few seconds")
        if self.status != "ready" or not self._restorable:
            raise ModelNotLoaded("no model is loaded")

    # ---------------------------------------------------------------------------------------- death and restart

    def _mourn(self, connection: Connection) -> None:
        """The pipe closed: fail what was in flight, then start again unless it dies all the time."""
        if self.status == "stopped" or connection is not self._connection:
            return
        log.error("engine.died", pid=self.pid, in_flight=self.in_flight)
        self._fail_all()
        now = time.monotonic()
        if len(self._deaths) == RESTARTS and now - self._deaths[0] < RESTART_WINDOW_SECONDS:
            self.status = "down"
            log.error("engine.down", reason=f"died {RESTARTS + 1} times within {RESTART_WINDOW_SECONDS:.0f} s")
            return
        self._deaths.append(now)
        self.status = "restarting"
        self._restoring = self._loop.create_task(self._restore())

    async def _restore(self) -> None:
        """A new process with the same model and the same SAEs; ids are new, what they mean is not."""
        self._spawn()
        try:
            for command in self._restorable:
                await self._ask(replace(command, id=self.new_id("restore")), None)
        except EngineCrashed:
            return  # it died again while restoring: `_mourn` has taken over
        except MillmError as error:
            self.status = "down"
            log.error("engine.down", reason=error.message)
            return
        self.status = "ready"
        log.info("engine.restored", pid=self.pid)

    def _fail_all(self) -> None:
        failed = EngineCrashed("the engine stopped while this request ran; it is being restarted, try again")
        for request_id, inbox in self._inboxes.items():
            inbox.put_nowait(Failed(id=request_id, code=failed.code, message=failed.message))


def _or_raise(event: Event) -> Event:
    if isinstance(event, Failed):
        raise from_code(event.code, event.message, event.param)
    return event


def _end(child: multiprocessing.process.BaseProcess) -> None:
    """The engine keeps nothing that would have to be saved."""
    child.terminate()
    child.join(3)
    if child.is_alive():
        child.kill()
        child.join()
