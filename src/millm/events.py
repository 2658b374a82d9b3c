"""What happens, told to whoever listens: typed events, and a bounded mailbox for each listener.

Publishing never waits: a listener that is too slow loses the oldest events and is told how many. Lives on one event
loop. Knows no websocket.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from millm.hub.jobs import ACTIVE, Job, Kind
from millm.monitor.rows import RequestRow

MAILBOX = 4096
"""Events that wait for one listener."""
MOST_LISTENERS = 64
MOST_A_SECOND = 4
"""Progress events of one job or change."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="hello"):
    """The first event of a connection."""

    version: str
    status: str
    """As `GET /api/status` says it."""


class Activations(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="activations"):
    """Activations of one SAE at one token, of what the monitor watches; where it watches nothing, of what the request
    asked for."""

    endpoint: str
    """The path that was asked, e.g. `/v1/chat/completions`."""
    request_id: str
    """The answer's `id`; embeddings, which have none, get one of their own."""
    index: int
    """Of the choice, or of the input that is embedded."""
    position: int
    """Of the token in prompt + completion."""
    token: str
    sae: str
    features: tuple[int, ...]
    values: tuple[float, ...]
    """One per feature."""
    top: tuple[tuple[int, float], ...] | UnsetType = UNSET
    """(feature, activation), largest first; left out where the whole dictionary was not read."""
    after: tuple[float, ...] | UnsetType = UNSET
    """`values` after steering, where both are watched."""
    top_after: tuple[tuple[int, float], ...] | UnsetType = UNSET


class RequestEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="request"):
    """A request has been answered, or has failed, or its client has gone."""

    request: RequestRow
    """As `GET /api/requests` lists it."""


class SteeringChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="steering"):
    """Another steering is active, for all who follow it."""

    version: int
    """As `GET /api/steering` says it."""
    profile: str | None
    fingerprint: str | None
    """None: the base model."""


class StatusChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="status"):
    """A model is being loaded, was loaded or unloaded, an SAE attached or detached, or something was given up."""

    status: str
    model: str | None
    saes: tuple[str, ...]
    degraded: str | None
    cause: str | None = None
    """Why the last change failed, or why nothing is loaded."""


class ChangeProgress(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """How far loading a model or attaching an SAE has come."""

    what: str
    """Name of the model or the SAE."""
    stage: str
    done: int
    total: int


class JobChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="job"):
    """A download went on, waits, ended or was asked for: at least twice a second while it runs."""

    job: Job


class LibraryChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="library"):
    """Something was installed, imported or deleted."""

    kind: Kind
    name: str


class ProfilesChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="profiles"):
    """A profile is new, says something else, has another name, or is gone."""

    name: str
    what: Literal["added", "changed", "deleted"]
    was: str | None = None
    """Its name before, if that was another."""


class Dropped(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="dropped"):
    """The listener was too slow for so many events, older than the next one."""

    count: int


Event = (
    Hello
    | Activations
    | RequestEnded
    | SteeringChanged
    | StatusChanged
    | ChangeProgress
    | JobChanged
    | LibraryChanged
    | ProfilesChanged
    | Dropped
)


@dataclass(frozen=True)
class Letter:
    """An event on its way: written down once, however many get it."""

    event: Event

    @cached_property
    def json(self) -> bytes:
        return msgspec.json.encode(self.event)


class Listener:
    """One mailbox."""

    def __init__(self) -> None:
        self._mail: deque[Letter] = deque()
        self._dropped = 0
        self._came = asyncio.Event()
        self._is_closed = False

    def put(self, letter: Letter) -> None:
        if len(self._mail) == MAILBOX:
            self._mail.popleft()
            self._dropped += 1
        self._mail.append(letter)
        self._came.set()

    def close(self) -> None:
        """What is there can still be taken."""
        self._is_closed = True
        self._came.set()

    @property
    def is_over(self) -> bool:
        return self._is_closed and not self._mail

    async def take(self) -> list[Letter]:
        """Everything that came since, as soon as there is something."""
        await self._came.wait()
        self._came.clear()
        missed = [Letter(Dropped(count=self._dropped))] if self._dropped else []
        letters = [*missed, *self._mail]
        self._mail.clear()
        self._dropped = 0
        return letters


class Steps:
    """When which job or change was last told of: only what it does, not how far it is, is always told."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}
        """What progresses → what it did then, and when (`time.monotonic`)."""

    def is_too_soon(self, event: Event) -> bool:
        match event:
            case JobChanged(job=job):
                return self._is_too_soon(f"job {job.id}", job.state, is_over=job.state not in ACTIVE)
            case ChangeProgress():
                return self._is_too_soon(event.what, event.stage, is_over=False)
            case StatusChanged():
                self._last = {name: last for name, last in self._last.items() if name.startswith("job ")}
        return False

    def _is_too_soon(self, name: str, does: str, *, is_over: bool) -> bool:
        now = time.monotonic()
        did, when = self._last.get(name, ("", 0.0))
        if does == did and now - when < 1 / MOST_A_SECOND:
            return True
        self._last[name] = (does, now)
        if is_over:
            del self._last[name]
        return False


class Events:
    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._steps = Steps()

    def __len__(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @property
    def is_full(self) -> bool:
        return len(self) >= MOST_LISTENERS

    def close(self) -> None:
        """Everybody who listens gets what there is, and then goes."""
        for listener in self._listeners:
            listener.close()

    def publish(self, event: Event) -> None:
        """Of progress, at most `MOST_A_SECOND` events for each thing that progresses."""
        if not self._steps.is_too_soon(event):
            self._put(event)

    def publish_job(self, job: Job) -> None:
        """And what it has brought, once it is there."""
        self.publish(JobChanged(job=job))
        if job.state == "installed":
            self.publish(LibraryChanged(kind=job.asked.kind, name=job.name))

    def _put(self, event: Event) -> None:
        letter = Letter(event)
        for listener in self._listeners:
            listener.put(letter)

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
