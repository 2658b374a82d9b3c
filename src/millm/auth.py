"""API keys, the scopes that they grant, and tickets. Knows no route; `api.middleware` lists all entry checks."""

import hmac
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from millm.errors import InvalidApiKey
from millm.settings import Settings

Scope = Literal["infer", "monitor", "admin"]
"""Use the model; read state and history; change the server."""
_BEARER_PREFIX = "bearer "


@dataclass(frozen=True)
class Principal:
    """The caller. `id` may be logged: it is never a key."""

    id: str
    scopes: frozenset[Scope]

    def has_scope(self, scope: Scope) -> bool:
        return scope in self.scopes


_ALL_SCOPES: frozenset[Scope] = frozenset(("infer", "monitor", "admin"))
_USER_SCOPES: frozenset[Scope] = frozenset(("infer", "monitor"))


def identify(settings: Settings, authorization: str | None) -> Principal:
    """Raises InvalidApiKey where a key is configured and `authorization` has none that matches.

    Without a configured key every key is accepted, since OpenAI's clients always send one.
    """
    api_keys, admin_keys = split_keys(settings.api_key), split_keys(settings.admin_key)
    sent = _bearer_token(authorization or "")
    if _matches_any(sent, admin_keys):
        return Principal("key:admin", _ALL_SCOPES)
    if _matches_any(sent, api_keys):
        return Principal("key:api", _USER_SCOPES if admin_keys else _ALL_SCOPES)
    if api_keys:
        raise InvalidApiKey("A valid API key is needed; send it as `Authorization: Bearer KEY`.")
    return Principal("anonymous", _USER_SCOPES if admin_keys else _ALL_SCOPES)


def split_keys(secret: SecretStr | None) -> tuple[str, ...]:
    """Keys separated by commas."""
    parts = secret.get_secret_value().split(",") if secret else ()
    return tuple(part.strip() for part in parts if part.strip())


def _bearer_token(authorization: str) -> str:
    has_bearer = authorization[: len(_BEARER_PREFIX)].lower() == _BEARER_PREFIX
    return authorization[len(_BEARER_PREFIX) :].strip() if has_bearer else ""


def _matches_any(sent: str, keys: Iterable[str]) -> bool:
    """Compares in constant time, so that the duration reveals nothing about a key."""
    return any(hmac.compare_digest(sent.encode(), key.encode()) for key in keys)


TICKET_LIFETIME_SECONDS = 60
_MAX_TICKETS = 1024
"""Outstanding at once; the oldest expires."""


class Tickets:
    """Single-use tickets for websockets: a browser cannot set their headers, and a key in a URL would be logged."""

    def __init__(self) -> None:
        self._issued: dict[str, tuple[Principal, float]] = {}
        """Ticket → caller and expiry by `time.monotonic`, oldest first."""

    def issue(self, principal: Principal) -> str:
        ticket = secrets.token_urlsafe(32)
        if len(self._issued) >= _MAX_TICKETS:
            del self._issued[next(iter(self._issued))]
        self._issued[ticket] = principal, time.monotonic() + TICKET_LIFETIME_SECONDS
        return ticket

    def redeem(self, ticket: str) -> Principal | None:
        """None for a ticket that is unknown, used or expired."""
        principal, expires_at = self._issued.pop(ticket, (None, 0.0))
        return principal if time.monotonic() <= expires_at else None
