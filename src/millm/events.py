"""What happens, told to whoever listens: typed events, and a bounded mailbox for each listener.

Publishing never waits: a listener that is too slow loses the oldest events and is told how many. Lives on one event
loop. Knows no websocket.

What is told of a request: who asked, what came of it, what was watched. Plain values.
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

from millm.hub.jobs import ACTIVE_STATES, ArtifactKind, DownloadJob

EndReason = Literal["stop", "length", "tool_calls", "embedded", "cancelled", "failed"]


class WatchedSae(msgspec.Struct, frozen=True, kw_only=True):
    """What the history has of one SAE."""

    sae: str
    features: tuple[int, ...]
    top_k: int
    tokens: int
    """At so many it was read."""


class RequestRecord(msgspec.Struct, kw_only=True):
    """One request: what was decided before it ran, and what came of it. `monitoring.recorder` fills it in."""

    id: str
    """The response's `id`; embeddings get one of their own."""
    endpoint: str
    model: str
    profile: str | None
    client: str
    """The client's family (`openai-python`, `open-webui`, `curl`, …), or the name in its `X-Millm-Source`."""
    task: str | None
    """Background task of a chat client, as Open WebUI names it: `title_generation`, …"""
    began: float
    """Unix time, in seconds."""
    seconds: float = 0.0
    """From when the request was understood until its last token, or until now."""
    first_token_seconds: float | None = None
    """Null before the first token."""
    streamed: bool
    end: EndReason | None = None
    """Null while the request runs. `cancelled`: the client disconnected."""
    error: str | None = None
    """Error code of a failed request."""
    choices: int
    """Answers, or inputs to embed."""
    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    steering: str | None = None
    """Fingerprint of the applied steering, from its receipt."""
    tokens_steered: int = 0
    delta_norm_ratio: float = 0.0
    degraded: str | None = None
    watched: tuple[WatchedSae, ...] = ()
    is_cut: bool = False
    """The history had no room for all activations."""


MAX_PENDING_EVENTS = 4096
"""Events that wait for one listener."""
MAX_SUBSCRIPTIONS = 64
MAX_PROGRESS_PER_SECOND = 4
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

    request: RequestRecord
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

    job: DownloadJob


class LibraryChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="library"):
    """Something was installed, imported or deleted."""

    kind: ArtifactKind
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
class EncodedEvent:
    """An event on its way: written down once, however many get it."""

    event: Event

    @cached_property
    def json(self) -> bytes:
        return msgspec.json.encode(self.event)


class EventSubscription:
    """One mailbox."""

    def __init__(self) -> None:
        self._pending: deque[EncodedEvent] = deque()
        self._dropped = 0
        self._available = asyncio.Event()
        self._is_closed = False

    def put(self, encoded: EncodedEvent) -> None:
        if len(self._pending) == MAX_PENDING_EVENTS:
            self._pending.popleft()
            self._dropped += 1
        self._pending.append(encoded)
        self._available.set()

    def close(self) -> None:
        """What is there can still be taken."""
        self._is_closed = True
        self._available.set()

    @property
    def is_finished(self) -> bool:
        return self._is_closed and not self._pending

    async def receive_all(self) -> list[EncodedEvent]:
        """Everything that came since, as soon as there is something."""
        await self._available.wait()
        self._available.clear()
        missed = [EncodedEvent(Dropped(count=self._dropped))] if self._dropped else []
        letters = [*missed, *self._pending]
        self._pending.clear()
        self._dropped = 0
        return letters


class ProgressThrottle:
    """When which job or change was last told of: only what it does, not how far it is, is always told."""

    def __init__(self) -> None:
        self._last_published: dict[str, tuple[str, float]] = {}
        """What progresses → what it did then, and when (`time.monotonic`)."""

    def is_too_soon(self, event: Event) -> bool:
        match event:
            case JobChanged(job=job):
                return self._is_repeated_too_soon(f"job {job.id}", job.state, is_over=job.state not in ACTIVE_STATES)
            case ChangeProgress():
                return self._is_repeated_too_soon(event.what, event.stage, is_over=False)
            case StatusChanged():
                self._last_published = {
                    name: last for name, last in self._last_published.items() if name.startswith("job ")
                }
        return False

    def _is_repeated_too_soon(self, name: str, stage: str, *, is_over: bool) -> bool:
        now = time.monotonic()
        did, when = self._last_published.get(name, ("", 0.0))
        if stage == did and now - when < 1 / MAX_PROGRESS_PER_SECOND:
            return True
        self._last_published[name] = (stage, now)
        if is_over:
            del self._last_published[name]
        return False


class EventBus:
    def __init__(self) -> None:
        self._subscriptions: set[EventSubscription] = set()
        self._throttle = ProgressThrottle()

    def __len__(self) -> int:
        """How many listen."""
        return len(self._subscriptions)

    @property
    def is_full(self) -> bool:
        return len(self) >= MAX_SUBSCRIPTIONS

    def close(self) -> None:
        """Everybody who listens gets what there is, and then goes."""
        for listener in self._subscriptions:
            listener.close()

    def publish(self, event: Event) -> None:
        """Of progress, at most `MOST_A_SECOND` events for each thing that progresses."""
        if not self._throttle.is_too_soon(event):
            self._deliver(event)

    def publish_job(self, job: DownloadJob) -> None:
        """And what it has brought, once it is there."""
        self.publish(JobChanged(job=job))
        if job.state == "installed":
            self.publish(LibraryChanged(kind=job.asked.kind, name=job.name))

    def _deliver(self, event: Event) -> None:
        letter = EncodedEvent(event)
        for listener in self._subscriptions:
            listener.put(letter)

    @contextmanager
    def subscribe(self) -> Iterator[EventSubscription]:
        listener = EventSubscription()
        self._subscriptions.add(listener)
        try:
            yield listener
        finally:
            self._subscriptions.remove(listener)
