"""Tickets for websockets: a browser cannot set their headers, and a key in a URL would end up in logs."""

import secrets
import time
from dataclasses import dataclass

from millm.principal import Principal

TICKET_LIFETIME_SECONDS = 60
_MAX_TICKETS = 1024
"""Outstanding at once; the oldest gives way."""


@dataclass(frozen=True)
class _IssuedTicket:
    principal: Principal
    expires_at: float
    """By `time.monotonic`."""


class Tickets:
    """Each is good once, for whoever asked for it."""

    def __init__(self) -> None:
        self._issued: dict[str, _IssuedTicket] = {}

    def issue(self, principal: Principal) -> str:
        ticket = secrets.token_urlsafe(32)
        if len(self._issued) >= _MAX_TICKETS:
            del self._issued[next(iter(self._issued))]
        self._issued[ticket] = _IssuedTicket(principal, time.monotonic() + TICKET_LIFETIME_SECONDS)
        return ticket

    def redeem(self, ticket: str) -> Principal | None:
        """None for one that is unknown, used or too old."""
        issued = self._issued.pop(ticket, None)
        return issued.principal if issued and time.monotonic() <= issued.expires_at else None
