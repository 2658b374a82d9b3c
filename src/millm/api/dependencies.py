"""What a route asks of whoever calls it: `dependencies=[requires("infer")]`, on http and websockets alike."""

from dataclasses import dataclass
from typing import Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from millm.auth import Principal, Scope, identify
from millm.errors import InvalidApiKey, ScopeMissing
from millm.state import State

PUBLIC = frozenset(("/healthz", "/readyz", "/", "/openapi.json", "/ui", "/ui/{path:path}"))
"""The only addresses that declare no scope."""


@dataclass(frozen=True)
class ScopeDependency:
    """The dependency: who asks, if that is allowed to ask."""

    scope: Scope

    def __call__(self, connection: HTTPConnection) -> Principal:
        """Raises InvalidApiKey, or ScopeMissing where another key would do."""
        principal = _identify_caller(connection)
        if principal.has_scope(self.scope):
            return principal
        if principal.id == "anonymous":
            raise InvalidApiKey("This needs the admin key; send it as `Authorization: Bearer KEY`.")
        raise ScopeMissing(f"This key does not allow {self.scope!r}; the admin key does (MILLM_ADMIN_KEY).")


def requires(scope: Scope) -> Any:
    """A dependency of a route or a router."""
    return Depends(ScopeDependency(scope))


def _identify_caller(connection: HTTPConnection) -> Principal:
    state: State = connection.app.state.millm
    ticket = connection.query_params.get("ticket") if connection.scope["type"] == "websocket" else None
    if ticket and (principal := state.tickets.redeem(ticket)):
        return principal
    return identify(state.settings, connection.headers.get("authorization"))
