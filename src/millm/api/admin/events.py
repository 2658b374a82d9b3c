"""The websocket `/api/events`: a hello, then all events as JSON lists, one frame per 50 ms; inbound only a filter.

A client that does not read is disconnected after a few seconds. Pings and the size limit of inbound frames are
uvicorn's.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Literal, TypeVar

import msgspec
from fastapi import APIRouter, WebSocket
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace
from starlette.websockets import WebSocketDisconnect

from millm import __version__
from millm.api.dependencies import requires
from millm.errors import Unavailable
from millm.events import MAX_SUBSCRIPTIONS, Activations, EncodedEvent, Event, EventSubscription, Hello
from millm.protocol.errors import failure_response
from millm.state import State

router = APIRouter()
T = TypeVar("T")
TopFeatures = tuple[tuple[int, float], ...]
SEND_SECONDS = 5.0
FRAME_SECONDS = 0.05
"""Minimum time between frames; one send per token would slow down a fast engine."""
MAX_FRAME_BYTES = 2**18
"""Approximate; clients often reject more than a MiB."""
GOING_AWAY, TRY_AGAIN_LATER, POLICY_VIOLATION = 1001, 1013, 1008
"""Close codes of RFC 6455 and its registry."""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client's message: the features of which it receives `activations`. The latest message applies."""

    type: Literal["watch"]
    sae: str | None = None
    """None: every SAE."""
    features: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=1024)] = ()
    """Empty: every feature."""

    def apply(self, event: Event) -> Event | None:
        """The event with the selected features; None if nothing remains."""
        if not isinstance(event, Activations):
            return event
        if self.sae not in (None, event.sae):
            return None
        return _select_features(event, frozenset(self.features)) if self.features else event


ALL_EVENTS = EventFilter(type="watch")


class _Client:
    """One connection and its current filter."""

    def __init__(self, socket: WebSocket, subscription: EventSubscription) -> None:
        self._socket = socket
        self._subscription = subscription
        self._filter = ALL_EVENTS

    async def read_filters(self) -> tuple[int, str]:
        """Read filters until the client disconnects or sends anything else; returns the close code and reason."""
        while True:
            try:
                self._filter = msgspec.json.decode(await self._socket.receive_text(), type=EventFilter)
            except (msgspec.DecodeError, KeyError):
                return POLICY_VIOLATION, 'expected {"type": "watch", "sae", "features": [at most 1024]}'
            except WebSocketDisconnect:
                return 1000, ""

    async def send(self, encoded_events: Iterable[EncodedEvent]) -> None:
        """Raises TimeoutError for a client that does not read."""
        for frame in _frames(filter(None, map(self._encode_filtered, encoded_events))):
            async with asyncio.timeout(SEND_SECONDS):
                await self._socket.send_text(frame)
            await asyncio.sleep(FRAME_SECONDS)

    def _encode_filtered(self, encoded: EncodedEvent) -> bytes | None:
        filtered = self._filter.apply(encoded.event)
        if filtered is None:
            return None
        return encoded.json if filtered is encoded.event else msgspec.json.encode(filtered)

    async def send_until_closed(self) -> tuple[int, str]:
        """Send until the client disconnects or is too slow, or the server stops; returns the close code and reason."""
        try:
            while not self._subscription.is_finished:
                await self.send(await self._subscription.receive_all())
            return GOING_AWAY, "the server is being stopped"
        except TimeoutError:
            return TRY_AGAIN_LATER, f"nothing was read for {SEND_SECONDS:g} s"
        except WebSocketDisconnect:
            return 1000, ""


@router.websocket("/events", dependencies=[requires("monitor")])
async def events(socket: WebSocket) -> None:
    """All events, until one side closes the connection."""
    state: State = socket.app.state.millm
    if state.events.is_full:
        full = Unavailable(f"{MAX_SUBSCRIPTIONS} connections listen to events already; close one and try again")
        return await socket.send_denial_response(failure_response(full))
    with state.events.subscribe() as subscription:
        subscription.put(EncodedEvent(Hello(version=__version__, status=state.status)))
        await socket.accept()
        await _close(socket, *await _serve(_Client(socket, subscription)))
    return None


async def _serve(client: _Client) -> tuple[int, str]:
    tasks = [asyncio.create_task(client.read_filters()), asyncio.create_task(client.send_until_closed())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Close with a timeout, for clients that no longer read."""
    with suppress(TimeoutError, RuntimeError, WebSocketDisconnect):  # already disconnected
        async with asyncio.timeout(SEND_SECONDS):
            await socket.close(code, reason)


def _frames(events: Iterable[bytes]) -> Iterator[str]:
    """The events as JSON lists of about `MAX_FRAME_BYTES` at most."""
    frame: list[bytes] = []
    for event in events:
        if frame and sum(map(len, frame)) + len(event) > MAX_FRAME_BYTES:
            yield f"[{b','.join(frame).decode()}]"
            frame = []
        frame.append(event)
    if frame:
        yield f"[{b','.join(frame).decode()}]"


def _select_features(event: Activations, features: frozenset[int]) -> Activations | None:
    positions = [position for position, feature in enumerate(event.features) if feature in features]
    top, top_after = _filter_top(event.top, features), _filter_top(event.top_after, features)
    if not positions and not top and not top_after:
        return None
    return replace(
        event,
        features=_pick(positions, event.features),
        values=_pick(positions, event.values),
        after=event.after and _pick(positions, event.after),
        top=top,
        top_after=top_after,
    )


def _pick(positions: Iterable[int], values: Sequence[T]) -> tuple[T, ...]:
    """Empty for an event without values."""
    return tuple(values[position] for position in positions) if values else ()


def _filter_top(top: TopFeatures | UnsetType, features: frozenset[int]) -> TopFeatures | UnsetType:
    if top is UNSET:
        return UNSET
    return tuple(pair for pair in top if pair[0] in features) or UNSET
