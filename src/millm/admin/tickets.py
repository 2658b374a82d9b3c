"""`POST /api/ws-ticket`: lets a browser, which cannot send a key with a websocket, open one."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from millm.access import ScopeDependency
from millm.auth import TICKET_LIFETIME_SECONDS, Principal
from millm.state import State

tickets_router = APIRouter()


class Ticket(msgspec.Struct, frozen=True):
    """The answer."""

    ticket: str
    """Good once, as `?ticket=`."""
    expires_in: int
    """Seconds."""


@tickets_router.post("/ws-ticket")
async def issue_ticket(
    request: Request, principal: Annotated[Principal, Depends(ScopeDependency("monitor"))]
) -> Response:
    """A ticket that stands for the key of this request."""
    state: State = request.app.state.millm
    ticket = Ticket(state.tickets.issue(principal), TICKET_LIFETIME_SECONDS)
    return Response(msgspec.json.encode(ticket), headers={"Cache-Control": "no-store"}, media_type="application/json")
