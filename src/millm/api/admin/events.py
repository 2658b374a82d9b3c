"""The websocket `/api/events`: a hello, then everything that happens, as JSON lists; inbound only a filter.

What happens within a twentieth of a second is one frame. A peer that does not read is cut off after a few seconds.
Pings are uvicorn's, and so is the limit on inbound frames.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
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
"""At most one frame in so long: a screen shows no more, and a fast engine is not held up by a send for every token."""
MAX_FRAME_BYTES = 2**18
"""Bytes, roughly: clients often refuse more than a MiB."""
GOING_AWAY, TRY_AGAIN_LATER, POLICY_VIOLATION = 1001, 1013, 1008
"""Close codes of RFC 6455 and its registry."""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client may send: of which features it wants `activations`. The latest holds."""

    type: Literal["watch"]
    sae: str | None = None
    """None: of any SAE."""
    features: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=1024)] = ()
    """None of them: of every feature."""

    def apply(self, event: Event) -> Event | None:
        """What is left of an event; None if nothing is."""
        if not isinstance(event, Activations):
            return event
        if self.sae not in (None, event.sae):
            return None
        return _select_features(event, frozenset(self.features)) if self.features else event


ALL_EVENTS = EventFilter(type="watch")


class _Client:
    """One connection: its filter may change while events are sent."""

    def __init__(self, socket: WebSocket, subscription: EventSubscription) -> None:
        self._socket = socket
        self._subscription = subscription
        self._filter = ALL_EVENTS

    async def read_filters(self) -> tuple[int, str]:
        """Filters, until the client goes or sends something else; → the code and the reason to close with."""
        while True:
            try:
                self._filter = msgspec.json.decode(await self._socket.receive_text(), type=EventFilter)
            except (msgspec.DecodeError, KeyError):
                return POLICY_VIOLATION, 'only {"type": "watch", "sae", "features": [at most 1024]} is understood here'
            except WebSocketDisconnect:
                return 1000, ""

    async def send(self, encoded_events: Iterable[EncodedEvent]) -> None:
        """Raises TimeoutError for a client that does not read."""
        for frame in _frames(filter(None, map(self._encode_filtered, encoded_events))):
            async with asyncio.timeout(SEND_SECONDS):
                await self._socket.send_text(frame)
            await asyncio.sleep(FRAME_SECONDS)

    def _encode_filtered(self, encoded: EncodedEvent) -> bytes | None:
        """What is left of it, written down; None if nothing is."""
        left = self._filter.apply(encoded.event)
        if left is None:
            return None
        return encoded.json if left is encoded.event else msgspec.json.encode(left)

    async def send_until_closed(self) -> tuple[int, str]:
        """Until the client is gone or too slow, or the server stops; → the code and the reason to close with."""
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
    """Everything that happens, until one side goes."""
    state: State = socket.app.state.millm
    if state.events.is_full:
        full = Unavailable(f"{MAX_SUBSCRIPTIONS} connections listen to events already; close one and try again")
        return await socket.send_denial_response(failure_response(full))
    with state.events.subscribe() as listener:
        listener.put(EncodedEvent(Hello(version=__version__, status=state.status)))
        await socket.accept()
        await _close(socket, *await _serve(_Client(socket, listener)))
    return None


async def _serve(client: _Client) -> tuple[int, str]:
    ways = [asyncio.create_task(client.read_filters()), asyncio.create_task(client.send_until_closed())]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Also of a peer that reads nothing any more, not even this."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await socket.close(code, reason)
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        return  # it was gone before


def _frames(events: Iterable[bytes]) -> Iterator[str]:
    """All of them, as lists that are not too long."""
    frame: list[bytes] = []
    for event in events:
        if frame and sum(map(len, frame)) + len(event) > MAX_FRAME_BYTES:
            yield _json_list(frame)
            frame = []
        frame.append(event)
    if frame:
        yield _json_list(frame)


def _json_list(events: Iterable[bytes]) -> str:
    return f"[{b','.join(events).decode()}]"


def _select_features(event: Activations, features: frozenset[int]) -> Activations | None:
    kept = [place for place, feature in enumerate(event.features) if feature in features]
    top, top_after = _filter_top(event.top, features), _filter_top(event.top_after, features)
    if not kept and not top and not top_after:
        return None
    return replace(
        event,
        features=_pick(kept, event.features),
        values=_pick(kept, event.values),
        after=event.after and _pick(kept, event.after),
        top=top,
        top_after=top_after,
    )


def _pick(positions: Iterable[int], values: Sequence[T]) -> tuple[T, ...]:
    """None of none: a reading may have lost its values."""
    return tuple(values[place] for place in positions) if values else ()


def _filter_top(top: TopFeatures | UnsetType, features: frozenset[int]) -> TopFeatures | UnsetType:
    if top is UNSET:
        return UNSET
    return tuple(pair for pair in top if pair[0] in features) or UNSET
