"""The API process's side of the engine: commands out, an async iterator of events per job back.

Owns the engine process: starts it, notices its death within the time of a closed pipe, fails what was in flight,
starts another and restores what had been acknowledged.
"""

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Literal

import structlog
from msgspec.structs import replace

from millm import logs
from millm.engine.child import Child
from millm.engine.deaths import TOO_OFTEN, Deaths
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    Degraded,
    DetachSae,
    Done,
    Embed,
    Embedded,
    Event,
    Failed,
    Fault,
    Finished,
    Generate,
    LoadModel,
    LogLine,
    ModelFacts,
    ModelLoaded,
    Platform,
    Progress,
    SaeAttached,
    SaeFacts,
    Scores,
    SetActiveSteering,
    Started,
    Token,
    UnloadModel,
)
from millm.engine.pace import Pace
from millm.engine.restorable import Restorable
from millm.errors import EngineCrashed, MillmError, ModelNotLoaded, QueueFull, from_code
from millm.sae.steering import Steering

log = structlog.get_logger()

OnProgress = Callable[[Progress], None]
Status = Literal["stopped", "ready", "restarting", "down"]
Change = LoadModel | UnloadModel | AttachSae | DetachSae | Fault
"""A command that is answered once, and may tell how far it has come before."""
Answer = Progress | ModelLoaded | SaeAttached | Done | Scores | Token | Finished | Embedded | Failed
"""An event that names the command it answers."""
Inbox = asyncio.Queue[Answer]

_TICK_SECONDS = 0.02
"""How often it is looked whether what is waited for is so."""
EMBEDDED_AT_ONCE = 8
"""Texts of one job that the engine has: enough that it never waits for the next, and other jobs have their turn."""


class EngineClient:
    """Lives on one event loop."""

    def __init__(self, *, max_queue: int, step_seconds: float = 600.0, log_level: str = "info") -> None:
        self.status: Status = "stopped"
        self.degraded: str | None = None
        """Why the engine turned the SAEs off to go on answering, until a model is loaded or an SAE attached."""
        self.on_degraded: Callable[[], None] = lambda: None
        self.on_emptied: Callable[[MillmError], None] = lambda _: None
        """The model is gone and does not come back by itself: the engine died too often, or could not restore it."""
        self.on_status: Callable[[], None] = lambda: None
        self.closed_because: str | None = None
        """Why nobody new is let in, while the model is about to change."""
        self.platform: Platform | None = None
        """What the engine runs on, once it has started."""
        self._max_queue = max_queue
        self._slots = 1
        self._arguments = (log_level, step_seconds)
        self._ids = itertools.count(1)
        self._sequences: dict[str, Inbox] = {}
        """Of each sequence the engine has: where its events go. One inbox for all the sequences of a job."""
        self._commands: dict[str, Inbox] = {}
        self._pace = Pace()
        self._last_end = time.monotonic()
        self._active: Steering | None = None
        self._restorable = Restorable()
        self._deaths = Deaths()
        self._child: Child | None = None
        self._restoring: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------------------------------------- life cycle

    async def start(self) -> None:
        """Spawn the engine process; it imports torch while we go on."""
        self._spawn()
        self.status = "ready"

    async def close(self) -> None:
        """End the engine process; what is in flight ends with EngineCrashed."""
        self.status = "stopped"
        if self._restoring:
            self._restoring.cancel()
        if self._child:
            await self._child.end()
        self._fail_all()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    async def known(self) -> Platform:
        """What the engine runs on, as soon as it has said so. Raises EngineCrashed."""
        while self.platform is None:
            if self.status in ("stopped", "down"):
                raise EngineCrashed("the engine does not run; the server's log has the reason")
            await asyncio.sleep(_TICK_SECONDS)
        return self.platform

    async def settled(self) -> None:
        """Until an engine that died is as it was: what is asked of it before would come between."""
        while self.status == "restarting":
            await asyncio.sleep(_TICK_SECONDS)

    @property
    def restorable(self) -> Restorable:
        """What an engine would be told to be as this one."""
        return self._restorable.copy()

    @property
    def idle_seconds(self) -> float:
        """Since the last answer ended."""
        return 0.0 if self.in_flight else time.monotonic() - self._last_end

    @property
    def in_flight(self) -> int:
        """Sequences the engine has: those that run and those that wait."""
        return len(self._sequences)

    @property
    def running(self) -> int:
        return min(self.in_flight, self._slots)

    @property
    def capacity(self) -> int:
        """Sequences that can be in flight: as many as run at once, and the queue."""
        return self._slots + self._max_queue

    # ------------------------------------------------------------------------------------------------ commands

    async def load(self, command: LoadModel, on_progress: OnProgress | None = None) -> ModelFacts:
        """Raises what the engine refuses; the model of before goes on serving then, unless it had to go first."""
        try:
            event = await self._ask(command, on_progress)
        except EngineCrashed:
            raise
        except MillmError:
            if command.unload_first:
                self._emptied()
            raise
        assert isinstance(event, ModelLoaded)
        self._emptied()
        self._last_end = time.monotonic()
        self._restorable.loaded(command)
        self._slots = event.facts.slots
        return event.facts

    async def unload(self) -> None:
        """What is in flight ends with ModelNotLoaded."""
        await self.settled()
        with contextlib.suppress(EngineCrashed):  # and all that it held has gone with it
            await self._ask(UnloadModel(id=self.new_id("unload")), None)
        self._emptied()

    async def attach(self, command: AttachSae, on_progress: OnProgress | None = None) -> SaeFacts:
        event = await self._ask(command, on_progress)
        assert isinstance(event, SaeAttached)
        self._restorable.attached(command)
        self.degraded = None
        return event.facts

    async def detach(self, sae: str) -> None:
        """What was begun with it ends with it. Raises SaeNotFound."""
        with contextlib.suppress(EngineCrashed):  # it comes back without it
            await self._ask(DetachSae(id=self.new_id("detach"), sae=sae), None)
        self._restorable.detached(sae)

    async def bring_back(self, what: Restorable) -> None:
        """The same model with the same SAEs, under the ids that they had, or none.

        Raises as `load` and `attach` do; nothing is loaded then.
        """
        if what.model is None:
            await self.unload()
            return
        try:
            await self.load(what.model)
            for sae in what.saes.values():
                await self.attach(sae)
        except MillmError:
            await self.unload()
            raise

    def kill(self) -> None:
        """An engine that hangs: it is started again as it was."""
        if self._child:
            self._child.kill()

    def give_up(self, load: LoadModel) -> None:
        """The load ends with ModelNotLoaded as soon as it next reports; the state is then that before it."""
        self._tell(Cancel(id=load.id))

    async def drain(self, because: str, seconds: float) -> None:
        """Nobody new is let in until `reopen`; who is in flight has so long to end."""
        self.closed_because = because
        deadline = time.monotonic() + seconds
        while self.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(_TICK_SECONDS)

    def reopen(self) -> None:
        self.closed_because = None

    def set_active(self, steering: Steering | None) -> None:
        """What sequences that follow get, those in flight from their next token."""
        self._active = steering
        self._tell(SetActiveSteering(steering=steering))

    async def inject(self, fault: Fault) -> None:
        """A failure on order. Raises InvalidRequest unless the engine was started for tests."""
        await self._ask(fault, None)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._ids)}"

    def check_room(self, sequences: int = 1) -> None:
        """Raises ModelNotLoaded, or QueueFull when that many more would have to wait with too many others."""
        if self.status == "restarting":
            raise ModelNotLoaded("the engine stopped and is being restarted; try again in a few seconds")
        if self.closed_because:
            raise ModelNotLoaded(self.closed_because)
        if self.status != "ready" or not self._restorable.model:
            raise ModelNotLoaded("no model is loaded")
        if self.in_flight + sequences > self.capacity:
            waiting = self.in_flight - self.running
            again = self._pace.retry_after_seconds(waiting)
            raise QueueFull(
                f"{waiting} of at most {self._max_queue} requests are waiting already; try again in {again} s",
                retry_after_seconds=again,
            )

    async def generate(self, *requests: Generate) -> AsyncGenerator[Scores | Token | Finished]:
        """Start all of one job's sequences, or none: → the scores and tokens of all, and one `Finished` for each.

        Raises MillmError, when one of them fails; closing the iterator cancels the others at the next step.
        """
        self.check_room(len(requests))
        inbox: Inbox = asyncio.Queue()
        open_ids = {request.id for request in requests}
        self._sequences.update(dict.fromkeys(open_ids, inbox))
        try:
            self._send(*(self._following(request) for request in requests))
            while open_ids:
                event = _or_raise(await inbox.get())
                assert isinstance(event, Scores | Token | Finished)
                if isinstance(event, Finished):
                    open_ids.remove(event.id)
                yield event
        finally:
            self.cancel(*open_ids & self._sequences.keys())  # the caller left before the end

    async def embed(self, *texts: Embed) -> list[Embedded]:
        """The vectors of one job's texts, in their order. A few at a time wait in the engine, and those count.

        Raises MillmError, when one of them fails; the others are then cancelled, as when the caller leaves.
        """
        self.check_room(min(len(texts), EMBEDDED_AT_ONCE))
        inbox: Inbox = asyncio.Queue()
        unsent, open_ids = deque(texts), set[str]()
        vectors: dict[str, Embedded] = {}
        try:
            while unsent or open_ids:
                following = [unsent.popleft() for _ in range(min(len(unsent), EMBEDDED_AT_ONCE - len(open_ids)))]
                open_ids.update(text.id for text in following)
                self._sequences.update({text.id: inbox for text in following})
                self._send(*following)
                event = _or_raise(await inbox.get())
                assert isinstance(event, Embedded)
                open_ids.remove(event.id)
                vectors[event.id] = event
        finally:
            self.cancel(*open_ids & self._sequences.keys())
        return [vectors[text.id] for text in texts]

    def cancel(self, *ids: str) -> None:
        """End sequences at the next step; whoever iterates over them still gets their `Finished`."""
        self._tell(*(Cancel(id=id) for id in ids))

    # ------------------------------------------------------------------------------------------------ plumbing

    def _spawn(self) -> None:
        self._child = Child(*self._arguments, on_events=self._deliver, on_death=self._mourn)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Degraded):
                self._degrade(event.reason)
            elif isinstance(event, Started):
                self.platform = event.platform
            elif isinstance(event, LogLine):
                logs.take(event.level, event.event, event.time, event.fields)
            elif inbox := self._inbox_of(event):
                inbox.put_nowait(event)

    def _inbox_of(self, event: Answer) -> Inbox | None:
        """A sequence is in flight until its last event has come, whether or not somebody still waits for it."""
        if event.id in self._commands:
            return self._commands[event.id]
        if isinstance(event, Token | Scores):
            return self._sequences.get(event.id)
        self._pace.ended()
        self._last_end = time.monotonic()
        return self._sequences.pop(event.id, None)

    def _degrade(self, reason: str) -> None:
        """Nothing comes back by itself, also not with a restart of the engine."""
        log.warning("engine.degraded", reason=reason)
        self.degraded = reason
        self._restorable.saes.clear()
        self.on_degraded()

    def _emptied(self) -> None:
        self._restorable = Restorable()
        self._active = None
        self.degraded = None

    def _following(self, request: Generate) -> Generate:
        """What is active may have changed since the request was read; from here on, the engine sees to it."""
        return replace(request, steering=self._active) if request.follows_active else request

    def _send(self, *commands: Command) -> None:
        assert self._child is not None
        self._child.send(commands)

    def _tell(self, *commands: SetActiveSteering | Cancel) -> None:
        """What only concerns sequences in flight: an engine that has died has none."""
        if commands and self._child:
            with contextlib.suppress(EngineCrashed):
                self._child.send(commands)

    async def _ask(self, command: Change, on_progress: OnProgress | None) -> Answer:
        inbox: Inbox = asyncio.Queue()
        self._commands[command.id] = inbox
        try:
            self._send(command)
            while isinstance(event := _or_raise(await inbox.get()), Progress):
                if on_progress:
                    on_progress(event)
            return event
        finally:
            del self._commands[command.id]

    # ---------------------------------------------------------------------------------------- death and restart

    def _mourn(self, child: Child) -> None:
        """The pipe closed: fail what was in flight, then start again, with less when it dies all the time."""
        if self.status == "stopped" or child is not self._child:
            return
        log.error("engine.died", pid=self.pid, in_flight=self.in_flight)
        self._fail_all()
        if self._deaths.one_too_many() and not self._restore_less():
            log.error("engine.down", reason=TOO_OFTEN)
            self._set_status("down")
        else:
            self._set_status("restarting")
            self._restoring = asyncio.create_task(self._restore())

    def _restore_less(self) -> bool:
        """First without SAEs, then without a model: people choose what to try next. False: there is no less."""
        has_saes, has_model = bool(self._restorable.saes), self._restorable.model is not None
        if has_saes:
            self._degrade(f"{TOO_OFTEN}: every SAE was detached; attach it again to steer")
        elif has_model:
            self._lose(EngineCrashed(f"{TOO_OFTEN}, and no model is loaded by itself any more; load one"))
        return has_saes or has_model

    def _lose(self, error: MillmError) -> None:
        """Of the model, nothing comes back by itself."""
        log.error("engine.emptied", reason=error.message)
        self._emptied()
        self.on_emptied(error)

    async def _restore(self) -> None:
        """A new process with the same model and the same SAEs, under the ids that requests know them by."""
        self._spawn()
        try:
            for command in self._restorable.commands:
                await self._ask(command, None)
        except EngineCrashed:
            return  # it died again while restoring: `_mourn` has taken over
        except MillmError as error:
            self._lose(error)
        self._set_status("ready")
        log.info("engine.restored", pid=self.pid)

    def _set_status(self, status: Status) -> None:
        self.status = status
        self.on_status()

    def _fail_all(self) -> None:
        failed = EngineCrashed("the engine stopped while this request ran; it is being restarted, try again")
        for id, inbox in (*self._sequences.items(), *self._commands.items()):
            inbox.put_nowait(Failed(id=id, code=failed.code, message=failed.message))
        self._sequences.clear()


def _or_raise(event: Answer) -> Answer:
    if isinstance(event, Failed):
        raise from_code(event.code, event.message, event.param)
    return event
