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
from millm.engine.child import Child, Spawned, spawn
from millm.engine.deaths import TOO_OFTEN, Deaths
from millm.engine.messages import (
    AttachSae,
    Command,
    Decomposed,
    Degraded,
    DetachSae,
    DirectionsFound,
    Done,
    Embedded,
    Event,
    Failed,
    Fault,
    FeatureDescribed,
    Finished,
    Judged,
    LoadModel,
    LogLine,
    ModelFacts,
    ModelLoaded,
    Platform,
    Progress,
    SaeAttached,
    SaeFacts,
    Scores,
    Started,
    Studied,
    Study,
    Surveyed,
    Token,
    UnloadModel,
)
from millm.engine.restorable import Restorable
from millm.errors import EngineCrashed, EngineFailed, MillmError, from_code

log = structlog.get_logger()

OnProgress = Callable[[Progress], None]
Status = Literal["stopped", "ready", "restarting", "down"]
Change = LoadModel | UnloadModel | AttachSae | DetachSae | Study | Fault
"""A command that is answered once, and may tell how far it has come before."""
Told = ModelLoaded | SaeAttached | Studied | Done | Failed
OfSequence = Scores | Token | Finished | Embedded | Judged | Surveyed | Failed
Inbox = asyncio.Queue[Progress | Told]

LOAD_STALL_SECONDS = 300.0
"""A load that has told nothing for so long hangs."""
TICK_SECONDS = 0.02
"""How often it is looked whether what is waited for is so."""


class KeptEngine(ABC):
    """Lives on one event loop."""

    def __init__(self, *, step_seconds: float, log_level: str) -> None:
        self.status: Status = "stopped"
        self.degraded: str | None = None
        """Why the engine turned the SAEs off to go on answering, until a model is loaded or an SAE attached."""
        self.on_degraded: Callable[[], None] = lambda: None
        self.on_emptied: Callable[[MillmError], None] = lambda _: None
        """The model is gone and does not come back by itself: the engine died too often, or could not restore it."""
        self.on_status: Callable[[], None] = lambda: None
        self.platform: Platform | None = None
        """What the engine runs on, once it has started."""
        self._arguments = (log_level, step_seconds)
        self._ids = itertools.count(1)
        self._commands: dict[str, Inbox] = {}
        self._restorable = Restorable()
        self._deaths = Deaths()
        self.restarts = 0
        """Times that it died and was started again."""
        self._child: Child | None = None
        self._restoring: asyncio.Task[None] | None = None

    # --------------------------------------------------------------------------------------- what is added to it

    @abstractmethod
    def _take(self, event: OfSequence) -> None:
        """An event of an answer that is being made."""

    @abstractmethod
    def _abandon(self) -> None:
        """Every answer that is being made ends with EngineCrashed."""

    @abstractmethod
    def _concerned(self, fields: dict[str, Any]) -> dict[str, Any]:
        """What is to be added to a line of the engine's log: whose answer it is about."""

    @abstractmethod
    def _changed(self) -> None:
        """Another model, or none."""

    # ------------------------------------------------------------------------------------------------ life cycle

    async def start(self, spawned: Spawned | None = None) -> None:
        """Spawn the engine process, unless one was; it imports torch while we go on."""
        self._hold(spawned or spawn(*self._arguments))
        self.status = "ready"

    async def close(self) -> None:
        """End the engine process; what is in flight ends with EngineCrashed."""
        self.status = "stopped"
        if self._restoring:
            self._restoring.cancel()
        if self._child:
            await self._child.end()
        self._fail_all()

    def kill(self) -> None:
        """An engine that hangs: it is started again as it was."""
        if self._child:
            self._child.kill()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    async def known(self) -> Platform:
        """What the engine runs on, as soon as it has said so. Raises EngineCrashed."""
        while self.platform is None:
            if self.status in ("stopped", "down"):
                raise EngineCrashed("the engine does not run; the server's log has the reason")
            await asyncio.sleep(TICK_SECONDS)
        return self.platform

    @property
    def restorable(self) -> Restorable:
        """What an engine would be told to be as this one."""
        return self._restorable.copy()

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._ids)}"

    # --------------------------------------------------------------------------------------------------- changes

    async def load(self, command: LoadModel, on_progress: OnProgress | None = None) -> ModelFacts:
        """Raises what the engine refuses; the model of before goes on serving then, unless it had to go first."""
        await self.settled()
        try:
            event = await self._ask(command, on_progress, stall=LOAD_STALL_SECONDS)
        except EngineCrashed:
            raise
        except TimeoutError as error:
            self.kill()
            raise EngineFailed(f"loading made no progress for {LOAD_STALL_SECONDS:.0f} s and was ended") from error
        except MillmError:
            if command.unload_first:
                self._emptied()
            raise
        assert isinstance(event, ModelLoaded)
        self._emptied()
        self._restorable.loaded(command)
        self._changed()
        return event.facts

    async def unload(self) -> None:
        """What is in flight ends with ModelNotLoaded."""
        await self.settled()
        with contextlib.suppress(EngineCrashed):  # and all that it held has gone with it
            await self._ask(UnloadModel(id=self.new_id("unload")))
        self._emptied()

    async def attach(self, command: AttachSae, on_progress: OnProgress | None = None) -> SaeFacts:
        await self.settled()
        event = await self._ask(command, on_progress)
        assert isinstance(event, SaeAttached)
        self._restorable.attached(command)
        self.degraded = None
        return event.facts

    async def detach(self, sae: str) -> None:
        """What was begun with it ends with it. Raises SaeNotFound."""
        await self.settled()
        with contextlib.suppress(EngineCrashed):  # it comes back without it
            await self._ask(DetachSae(id=self.new_id("detach"), sae=sae))
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

    async def inject(self, fault: Fault) -> None:
        """A failure on order. Raises InvalidRequest unless the engine was started for tests."""
        await self._ask(fault)

    async def settled(self) -> None:
        """Until an engine that died is as it was: what is asked of it before would come between."""
        while self.status == "restarting":
            await asyncio.sleep(TICK_SECONDS)

    # -------------------------------------------------------------------------------------------------- plumbing

    def _hold(self, spawned: Spawned) -> None:
        self._child = Child(spawned, on_events=self._deliver, on_death=self._mourn)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Degraded():
                    self._degrade(event.reason)
                case Started():
                    self.platform = event.platform
                case LogLine():
                    logs.take(event.level, event.event, event.time, event.fields | self._concerned(event.fields))
                case Progress() | ModelLoaded() | SaeAttached() | Done():
                    self._answer(event)
                case FeatureDescribed() | DirectionsFound() | Decomposed():
                    self._answer(event)
                case Failed() if event.id in self._commands:
                    self._answer(event)
                case _:
                    self._take(event)

    def _answer(self, event: Progress | Told) -> None:
        """Whoever asked may have gone."""
        if inbox := self._commands.get(event.id):
            inbox.put_nowait(event)

    def _send(self, *commands: Command) -> None:
        assert self._child is not None
        self._child.send(commands)

    async def _ask(self, command: Change, on_progress: OnProgress | None = None, stall: float | None = None) -> Told:
        """`stall`: seconds without a word after which TimeoutError is raised."""
        inbox: Inbox = asyncio.Queue()
        self._commands[command.id] = inbox
        try:
            self._send(command)
            while isinstance(event := await asyncio.wait_for(inbox.get(), stall), Progress):
                if on_progress:
                    on_progress(event)
        finally:
            del self._commands[command.id]
        raise_failure(event)
        return event

    def _degrade(self, reason: str) -> None:
        """Nothing comes back by itself, also not with a restart of the engine."""
        log.warning("engine.degraded", reason=reason)
        self.degraded = reason
        self._restorable.saes.clear()
        self.on_degraded()

    def _emptied(self) -> None:
        self._restorable = Restorable()
        self.degraded = None
        self._changed()

    # ---------------------------------------------------------------------------------------- death and restart

    def _mourn(self, child: Child) -> None:
        """The pipe closed: fail what was in flight, then start again, with less when it dies all the time."""
        if self.status == "stopped" or child is not self._child:
            return
        log.error("engine.died", pid=self.pid)
        self._fail_all()
        if self._deaths.one_too_many() and not self._restore_less():
            log.error("engine.down", reason=TOO_OFTEN)
            self._set_status("down")
        else:
            self._set_status("restarting")
            self.restarts += 1
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
        self._hold(spawn(*self._arguments))
        try:
            for command in self._restorable.commands:
                await self._ask(command)
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
        failed = crashed()
        for id, inbox in self._commands.items():
            inbox.put_nowait(Failed(id=id, code=failed.code, message=failed.message))
        self._abandon()


def crashed() -> EngineCrashed:
    return EngineCrashed("the engine stopped while this request ran; it is being restarted, try again")


def raise_failure(event: Event) -> None:
    """Raises the error that a `Failed` tells of."""
    if isinstance(event, Failed):
        raise from_code(event.code, event.message, event.param)
