"""The API process's side of the engine: requests out, an async iterator of events per job back."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

import structlog
from msgspec.structs import replace

from millm.engine.kept import TICK_SECONDS, KeptEngine, OfSequence, OnProgress, crashed, raise_failure
from millm.engine.messages import (
    Cancel,
    Embed,
    Embedded,
    Failed,
    Finished,
    Generate,
    Judge,
    Judged,
    LoadModel,
    ModelFacts,
    Scores,
    SetActiveSteering,
    Studied,
    Study,
    Survey,
    Surveyed,
    Text,
    Token,
)
from millm.engine.pace import Pace
from millm.errors import EngineCrashed, MillmError, ModelNotLoaded, QueueFull, RequestCancelled
from millm.sae.steering import Steering

Answer = TypeVar("Answer", Embedded, Judged, Surveyed)

TEXTS_AT_ONCE = 8
"""Texts of one job that the engine has: enough that it never waits for the next, and other jobs have their turn."""


class Inbox(asyncio.Queue[OfSequence]):
    """Where the events of a job's sequences go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_by: str | None = structlog.contextvars.get_contextvars().get("request_id")
        """The request, as log lines know it."""


class EngineClient(KeptEngine):
    """Lives on one event loop."""

    def __init__(self, *, max_queue: int, step_seconds: float = 600.0, log_level: str = "info") -> None:
        super().__init__(step_seconds=step_seconds, log_level=log_level)
        self.closed_because: str | None = None
        """Why nobody new is let in, while the model is about to change."""
        self._max_queue = max_queue
        self._slots = 1
        self._sequences: dict[str, Inbox] = {}
        """Of each sequence the engine has: where its events go. One inbox for all the sequences of a job."""
        self._pace = Pace()
        self._last_end = time.monotonic()
        self._active: Steering | None = None
        self._ended: MillmError | None = None

    # -------------------------------------------------------------------------------------------- how busy it is

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

    # ----------------------------------------------------------------------------------------- about all of them

    async def load(self, command: LoadModel, on_progress: OnProgress | None = None) -> ModelFacts:
        facts = await super().load(command, on_progress)
        self._slots = facts.slots
        return facts

    def give_up(self, load: LoadModel) -> None:
        """The load ends with ModelNotLoaded as soon as it next reports; the state is then that before it."""
        self._tell(Cancel(id=load.id))

    async def drain(self, because: str, seconds: float) -> None:
        """Nobody new is let in until `reopen`; who is in flight has so long to end."""
        self.closed_because = because
        deadline = time.monotonic() + seconds
        while self.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(TICK_SECONDS)

    def reopen(self) -> None:
        self.closed_because = None

    def end(self, because: MillmError) -> None:
        """For good: what is in flight ends with this error, and so does all that comes."""
        self._ended = because
        for id, inbox in self._sequences.items():
            inbox.put_nowait(Failed(id=id, code=because.code, message=because.message))

    def set_active(self, steering: Steering | None) -> None:
        """What sequences that follow get, those in flight from their next token."""
        self._active = steering
        self._tell(SetActiveSteering(steering=steering))

    # --------------------------------------------------------------------------------------------------- answers

    def check_room(self, sequences: int = 1) -> None:
        """Raises what it was ended with, ModelNotLoaded, or QueueFull when that many more would have to wait with too
        many others."""
        if self._ended:
            raise self._ended
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
        inbox = Inbox()
        open_ids = {request.id for request in requests}
        self._sequences.update(dict.fromkeys(open_ids, inbox))
        try:
            self._send(*(self._following(request) for request in requests))
            while open_ids:
                event = await inbox.get()
                raise_failure(event)
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
        return await self._few_at_a_time(texts, Embedded)

    async def judge(self, *texts: Judge) -> list[Judged]:
        """How likely each answer is; as `embed`."""
        return await self._few_at_a_time(texts, Judged)

    async def survey(self, *texts: Survey) -> list[Surveyed]:
        """Which features fire on each text; as `embed`."""
        return await self._few_at_a_time(texts, Surveyed)

    async def study(self, command: Study) -> Studied:
        """What decoder rows say. Raises ModelNotLoaded and what the engine refuses."""
        self.check_room(0)
        event = await self._ask(command)
        assert isinstance(event, Studied)
        return event

    async def _few_at_a_time(self, texts: Sequence[Text], kind: type[Answer]) -> list[Answer]:
        self.check_room(min(len(texts), TEXTS_AT_ONCE))
        inbox = Inbox()
        unsent, open_ids = deque(texts), set[str]()
        answers: dict[str, Answer] = {}
        try:
            while unsent or open_ids:
                following = [unsent.popleft() for _ in range(min(len(unsent), TEXTS_AT_ONCE - len(open_ids)))]
                open_ids.update(text.id for text in following)
                self._sequences.update({text.id: inbox for text in following})
                self._send(*following)
                event = await inbox.get()
                raise_failure(event)
                assert isinstance(event, kind)
                open_ids.remove(event.id)
                answers[event.id] = event
        finally:
            self.cancel(*open_ids & self._sequences.keys())
        return [answers[text.id] for text in texts]

    def dismiss(self, *ids: str) -> bool:
        """Whoever iterates over one of these gets RequestCancelled, and none runs on; False: the engine has none."""
        ours = [id for id in ids if id in self._sequences]
        for id in ours[:1]:  # one fails, and with it the job that they are of
            message = "The request was ended on the server."
            self._sequences[id].put_nowait(Failed(id=id, code=RequestCancelled.code, message=message))
        return bool(ours)

    def cancel(self, *ids: str) -> None:
        """End sequences at the next step; whoever iterates over them still gets their `Finished`."""
        self._tell(*(Cancel(id=id) for id in ids))

    # -------------------------------------------------------------------------------------------------- plumbing

    def _take(self, event: OfSequence) -> None:
        """A sequence is in flight until its last event has come, whether or not somebody still waits for it."""
        if isinstance(event, Token | Scores):
            inbox = self._sequences.get(event.id)
        else:
            self._pace.ended()
            self._last_end = time.monotonic()
            inbox = self._sequences.pop(event.id, None)
        if inbox:
            inbox.put_nowait(event)

    def _concerned(self, fields: dict[str, Any]) -> dict[str, Any]:
        inbox = self._sequences.get(fields.get("command", ""))
        return {"request_id": inbox.asked_by} if inbox and inbox.asked_by else {}

    def _abandon(self) -> None:
        failed = crashed()
        for id, inbox in self._sequences.items():
            inbox.put_nowait(Failed(id=id, code=failed.code, message=failed.message))
        self._sequences.clear()

    def _changed(self) -> None:
        self._active = None
        self._last_end = time.monotonic()

    def _following(self, request: Generate) -> Generate:
        """What is active may have changed since the request was read; from here on, the engine sees to it."""
        return replace(request, steering=self._active) if request.follows_active else request

    def _tell(self, *commands: SetActiveSteering | Cancel) -> None:
        """What only concerns sequences in flight: an engine that has died has none."""
        if commands and self._child:
            with contextlib.suppress(EngineCrashed):
                self._child.send(commands)
