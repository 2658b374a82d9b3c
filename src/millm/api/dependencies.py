"""The scope that a route requires: `dependencies=[requires("infer")]`, for HTTP and websockets."""

from dataclasses import dataclass
from typing import Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from millm.auth import Principal, Scope, identify
from millm.errors import InvalidApiKey, ScopeMissing
from millm.state import State

PUBLIC = frozenset(("/healthz", "/readyz", "/", "/openapi.json", "/ui", "/ui/{path:path}"))
"""Routes without a scope; every other route declares one."""


@dataclass(frozen=True)
class ScopeDependency:
    """Returns the caller if its key grants the scope."""

    scope: Scope

    def __call__(self, connection: HTTPConnection) -> Principal:
        """Raises InvalidApiKey, or ScopeMissing for a valid key with too few scopes."""
        principal = _identify_caller(connection)
        if principal.has_scope(self.scope):
            return principal
        if principal.id == "anonymous":
            raise InvalidApiKey("The admin key is required; send it as `Authorization: Bearer KEY`.")
        raise ScopeMissing(f"This key does not allow {self.scope!r}; the admin key does (MILLM_ADMIN_KEY).")


def requires(scope: Scope) -> Any:
    """The dependency for a route or a router."""
    return Depends(ScopeDependency(scope))


def _identify_caller(connection: HTTPConnection) -> Principal:
    state: State = connection.app.state.millm
    ticket = connection.query_params.get("ticket") if connection.scope["type"] == "websocket" else None
    if ticket and (principal := state.tickets.redeem(ticket)):
        return principal
    return identify(state.settings, connection.headers.get("authorization"))
