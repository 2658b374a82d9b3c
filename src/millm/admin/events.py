"""The websocket `/api/events`: a hello, then everything that happens, as JSON text; inbound only a filter.

A peer that does not read is cut off after a few seconds. Pings are uvicorn's, and so is the limit on inbound frames.
"""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, WebSocket
from msgspec import UNSET, Meta
from msgspec.structs import replace
from starlette.websockets import WebSocketDisconnect

from millm import __version__
from millm.access import requires
from millm.errors import Unavailable
from millm.events import MOST_LISTENERS, Activations, Event, Hello, Listener
from millm.openai.envelope import answer_failure
from millm.state import State

router = APIRouter()

SEND_SECONDS = 5.0

TRY_AGAIN_LATER, POLICY_VIOLATION = 1013, 1008
"""Close codes of RFC 6455 and its registry."""


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client may send: of which features it wants `activations`. The latest holds."""

    type: Literal["watch"]
    sae: str | None = None
    """None: of any SAE."""
    features: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=1024)] = ()
    """None of them: of every feature."""

    def of(self, event: Event) -> Event | None:
        """What is left of an event; None if nothing is."""
        if not isinstance(event, Activations):
            return event
        if self.sae not in (None, event.sae):
            return None
        return _only(event, frozenset(self.features)) if self.features else event


EVERYTHING = Filter(type="watch")


class _Client:
    """One connection: its filter may change while events are sent."""

    def __init__(self, socket: WebSocket, listener: Listener) -> None:
        self._socket = socket
        self._listener = listener
        self._filter = EVERYTHING

    async def read(self) -> tuple[int, str]:
        """Filters, until the client goes or sends something else; → the code and the reason to close with."""
        while True:
            try:
                self._filter = msgspec.json.decode(await self._socket.receive_text(), type=Filter)
            except (msgspec.DecodeError, KeyError):
                return POLICY_VIOLATION, 'only {"type": "watch", "sae", "features": [at most 1024]} is understood here'
            except WebSocketDisconnect:
                return 1000, ""

    async def write(self, events: Iterable[Event]) -> None:
        """Raises TimeoutError for a client that does not read."""
        for event in events:
            if (left := self._filter.of(event)) is not None:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._socket.send_text(msgspec.json.encode(left).decode())

    async def write_all(self) -> tuple[int, str]:
        """Until the client is gone or too slow; → the code and the reason to close with."""
        try:
            while True:
                await self.write(await self._listener.take())
        except TimeoutError:
            return TRY_AGAIN_LATER, f"nothing was read for {SEND_SECONDS:g} s"
        except WebSocketDisconnect:
            return 1000, ""


@router.websocket("/events", dependencies=[requires("monitor")])
async def events(socket: WebSocket) -> None:
    """Everything that happens, until one side goes."""
    state: State = socket.app.state.millm
    if state.events.is_full:
        full = Unavailable(f"{MOST_LISTENERS} connections listen to events already; close one and try again")
        return await socket.send_denial_response(answer_failure(full))
    with state.events.listening() as listener:
        listener.put(Hello(version=__version__, status=state.status))
        await socket.accept()
        await _close(socket, *await _first_of(_Client(socket, listener)))
    return None


async def _first_of(client: _Client) -> tuple[int, str]:
    ways = [asyncio.create_task(client.read()), asyncio.create_task(client.write_all())]
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


def _only(event: Activations, features: frozenset[int]) -> Activations | None:
    kept = [
        (feature, value) for feature, value in zip(event.features, event.values, strict=True) if feature in features
    ]
    top = UNSET if event.top is UNSET else tuple(pair for pair in event.top if pair[0] in features)
    if not kept and not top:
        return None
    return replace(event, features=tuple(f for f, _ in kept), values=tuple(v for _, v in kept), top=top or UNSET)
