"""Typed events, the record of a request, and the bus that publishes events to subscribers.

Publishing never waits: a slow subscriber loses its oldest events and receives their number. Belongs to one event loop
and knows no websocket.
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
    """Recorded activations of one SAE in one request."""

    sae: str
    features: tuple[int, ...]
    top_k: int
    tokens: int
    """Tokens with recorded activations."""


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
"""Limit for one subscription."""
MAX_SUBSCRIPTIONS = 64
MAX_PROGRESS_PER_SECOND = 4
"""Limit for each job or change."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="hello"):
    """The first event of a connection."""

    version: str
    status: str
    """The status in `GET /api/status`."""


class Activations(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="activations"):
    """Activations of one SAE at one token: the monitor's watches, or the request's own where the monitor has none."""

    endpoint: str
    """Path, e.g. `/v1/chat/completions`."""
    request_id: str
    """The response's `id`; embeddings get one of their own."""
    index: int
    """Number of the choice or input."""
    position: int
    """Position in prompt + completion."""
    token: str
    sae: str
    features: tuple[int, ...]
    values: tuple[float, ...]
    """One per feature."""
    top: tuple[tuple[int, float], ...] | UnsetType = UNSET
    """(feature, activation), largest first; absent where `top_k` was not sampled."""
    after: tuple[float, ...] | UnsetType = UNSET
    """`values` after steering, with `when: both`."""
    top_after: tuple[tuple[int, float], ...] | UnsetType = UNSET


class RequestEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="request"):
    """A request was answered, failed or was cancelled."""

    request: RequestRecord
    """The entry in `GET /api/requests`."""


class SteeringChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="steering"):
    """The active steering has changed."""

    version: int
    """The version in `GET /api/steering`."""
    profile: str | None
    fingerprint: str | None
    """None: the base model."""


class StatusChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="status"):
    """A model was loaded or unloaded, an SAE attached or detached, or the server is degraded."""

    status: str
    model: str | None
    saes: tuple[str, ...]
    degraded: str | None
    cause: str | None = None
    """Why the last change failed, or why no model is loaded."""


class ChangeProgress(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """Progress of loading a model or attaching an SAE."""

    what: str
    """Name of the model or SAE."""
    stage: str
    done: int
    total: int


class JobChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="job"):
    """A download was queued, progressed or finished; at least twice a second while it runs."""

    job: DownloadJob


class LibraryChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="library"):
    """A model or SAE was installed, imported or deleted."""

    kind: ArtifactKind
    name: str


class ProfilesChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="profiles"):
    """A profile was added, changed, renamed or deleted."""

    name: str
    what: Literal["added", "changed", "deleted"]
    was: str | None = None
    """Previous name of a renamed profile."""


class Dropped(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="dropped"):
    """Number of events lost before the next one, because the subscriber is too slow."""

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
    """An event whose JSON is encoded once for all subscriptions."""

    event: Event

    @cached_property
    def json(self) -> bytes:
        return msgspec.json.encode(self.event)


class EventSubscription:
    """The queue of one subscriber."""

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
        """Pending events can still be received."""
        self._is_closed = True
        self._available.set()

    @property
    def is_finished(self) -> bool:
        return self._is_closed and not self._pending

    async def receive_all(self) -> list[EncodedEvent]:
        """Wait for events, then return all pending ones."""
        await self._available.wait()
        self._available.clear()
        missed = [EncodedEvent(Dropped(count=self._dropped))] if self._dropped else []
        received = [*missed, *self._pending]
        self._pending.clear()
        self._dropped = 0
        return received


class ProgressThrottle:
    """Limits progress events to MAX_PROGRESS_PER_SECOND; changes of state always pass."""

    def __init__(self) -> None:
        self._last_published: dict[str, tuple[str, float]] = {}
        """Job or change → its last published stage and `time.monotonic`."""

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
        last_stage, last_time = self._last_published.get(name, ("", 0.0))
        if stage == last_stage and now - last_time < 1 / MAX_PROGRESS_PER_SECOND:
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
        """Number of subscriptions."""
        return len(self._subscriptions)

    @property
    def is_full(self) -> bool:
        return len(self) >= MAX_SUBSCRIPTIONS

    def close(self) -> None:
        """Subscribers receive their pending events, then end."""
        for subscription in self._subscriptions:
            subscription.close()

    def publish(self, event: Event) -> None:
        if self._throttle.is_too_soon(event):
            return
        encoded = EncodedEvent(event)
        for subscription in self._subscriptions:
            subscription.put(encoded)

    def publish_job(self, job: DownloadJob) -> None:
        """Also publishes LibraryChanged once the job has installed something."""
        self.publish(JobChanged(job=job))
        if job.state == "installed":
            self.publish(LibraryChanged(kind=job.asked.kind, name=job.name))

    @contextmanager
    def subscribe(self) -> Iterator[EventSubscription]:
        subscription = EventSubscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
