"""Keys, scopes and tickets, on every route."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.testclient import TestClient

from millm import auth
from millm.api.app import create_app
from millm.api.dependencies import PUBLIC, ScopeDependency
from millm.auth import Principal, Tickets
from millm.settings import Settings
from millm.state import EXPERIMENT_PATHS, is_model_request
from tests.api.conftest import Walled
from tests.api.raw_http import exchange, handshake, request
from tests.fixtures.bare import bare_state

API, SECOND, ADMIN = "key-for-people", "key-for-others", "key-for-one"


def app_with(**settings: Any) -> FastAPI:
    return create_app(bare_state(**settings))


def routes(routers: list[Any], prefix: str = "", above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any, list[Any]]]:
    """(address, route, dependencies) of every route, at any depth of inclusion."""
    for route in routers:
        if hasattr(route, "original_router"):
            context = route.include_context
            inner = (*above, *context.dependencies, *route.original_router.dependencies)
            yield from routes(route.original_router.routes, prefix + context.prefix, inner)
        else:
            yield prefix + route.path, route, [*above, *getattr(route, "dependencies", ())]


def scopes_of(route: Any, above: list[Any]) -> set[str]:
    own = [each.call for each in route.dependant.dependencies] if hasattr(route, "dependant") else []
    return {each.scope for each in [*own, *(one.dependency for one in above)] if isinstance(each, ScopeDependency)}


def test_every_route_has_a_scope_or_is_public() -> None:
    open_to_all = {path for path, route, above in routes(app_with().routes) if not scopes_of(route, above)}
    assert open_to_all == PUBLIC


def test_route_walk_finds_all_routes() -> None:
    found = {path: scopes_of(route, above) for path, route, above in routes(app_with().routes)}
    assert found["/v1/chat/completions"] == {"infer"}
    assert found["/api/status"] == found["/metrics"] == {"monitor"}
    assert found["/api/ws-ticket"] == {"monitor"}
    app = app_with()
    app.add_api_websocket_route("/forgotten", lambda websocket: None)
    assert "/forgotten" in {path for path, route, above in routes(app.routes) if not scopes_of(route, above)}


LOOKING = {
    "/api/models/estimate", "/api/ws-ticket", "/api/features/inspect", "/api/features/contrast",
    "/api/profiles/import/preview",
}  # fmt: skip
"""POST routes that change nothing."""


def test_changing_routes_need_the_admin_scope() -> None:
    for path, route, above in routes(app_with().routes):
        if path.startswith("/api/") and isinstance(route, APIRoute):
            is_look = route.methods == {"GET"} or path in LOOKING
            needed = "infer" if path in EXPERIMENT_PATHS else "monitor" if is_look else "admin"
            assert scopes_of(route, above) == {needed}, path


def test_drain_gate_tracks_exactly_the_infer_routes() -> None:
    """`is_model_request`, which goes by address, agrees with the scopes of the routes."""
    for path, route, above in routes(app_with().routes):
        if isinstance(route, APIRoute) and not path.startswith("/v1/responses/"):  # they keep nothing, and ask nobody
            caller = any(is_model_request(method, path) for method in route.methods)
            assert caller is (scopes_of(route, above) == {"infer"} and "POST" in route.methods), path


def test_every_route_rejects_missing_key() -> None:
    app = app_with(api_key=API)
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    for path, route, _ in routes(app.routes):
        for method in getattr(route, "methods", ()):
            if isinstance(route, APIRoute) and path not in PUBLIC:
                answer = client.request(method, re.sub(r"{\w+(:path)?}", "m", path), json={})
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), path
                assert answer.headers["www-authenticate"] == "Bearer"
        assert not isinstance(route, APIWebSocketRoute) or scopes_of(route, [])


@pytest.fixture(scope="module")
def keyed() -> TestClient:
    app = app_with(api_key=f"{API}, {SECOND}", admin_key=ADMIN)
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


LET_THROUGH = 503
"""The status without a model."""
STATUS, STEER, METRICS = ("GET", "/api/status"), ("PUT", "/api/steering"), ("GET", "/metrics")


@pytest.mark.parametrize(
    ("authorization", "requested", "status"),
    [
        (f"Bearer {API}", STATUS, 200),
        (f"bearer {SECOND}", STATUS, 200),
        (f"Bearer {ADMIN}", STATUS, 200),
        (f"Bearer {API}", STEER, 403),
        (f"Bearer {API}", ("GET", "/api/models"), 200),
        (f"Bearer {API}", ("GET", "/api/logs"), 200),
        (f"Bearer {API}", METRICS, 200),
        (f"Bearer {ADMIN}", METRICS, 200),
        (f"Bearer {API}", ("POST", "/api/models/unload"), 403),
        (f"Bearer {API}", ("POST", "/api/models/preview"), 403),
        (f"Bearer {API}", ("DELETE", "/api/saes/x"), 403),
        (f"Bearer {ADMIN}", ("DELETE", "/api/saes/x"), 404),
        (None, ("GET", "/api/jobs"), 401),
        (f"Bearer {ADMIN}", STEER, LET_THROUGH),
        (f"Bearer {API}x", STATUS, 401),
        (f"Bearer {API}, {SECOND}", STATUS, 401),
        (API, STATUS, 401),
        (f"Basic {API}", STATUS, 401),
        ("Bearer ", STATUS, 401),
        ("Bearer é", STATUS, 401),
        (None, STATUS, 401),
        (None, STEER, 401),
        (None, METRICS, 401),
        (None, ("GET", "/healthz"), 200),
        (None, ("GET", "/"), 200),
    ],
)
def test_scopes_of_each_key(
    keyed: TestClient, authorization: str | None, requested: tuple[str, str], status: int
) -> None:
    headers = {b"authorization": authorization.encode("latin-1")} if authorization is not None else {}
    answer = keyed.request(*requested, headers=headers, content=b"null" if requested is STEER else None)
    assert answer.status_code == status
    assert API not in answer.text + str(answer.headers)


def test_key_is_read_from_authorization_header_only(keyed: TestClient) -> None:
    elsewhere = {"x-api-key": API, "api-key": API, "cookie": f"key={API}"}
    assert keyed.get(f"/api/status?api_key={API}&ticket={API}", headers=elsewhere).status_code == 401


def test_any_key_is_accepted_without_configured_key() -> None:
    client = TestClient(app_with(), base_url="http://localhost")
    for headers in ({}, {"authorization": "Bearer any"}, {"authorization": "nonsense"}):
        assert client.get("/api/status", headers=headers).status_code == 200
        assert client.put("/api/steering", content=b"null", headers=headers).status_code == LET_THROUGH


def test_admin_key_alone_protects_only_changes() -> None:
    client = TestClient(app_with(admin_key=ADMIN), base_url="http://localhost")
    assert client.get("/api/status").status_code == 200
    assert client.put("/api/steering", content=b"null").status_code == 401
    admin = {"authorization": f"Bearer {ADMIN}"}
    assert client.put("/api/steering", content=b"null", headers=admin).status_code == LET_THROUGH


def test_keys_are_redacted() -> None:
    settings = Settings.load(api_key=API, admin_key=ADMIN)
    assert API not in repr(settings)
    assert ADMIN not in str(settings.model_dump())


def test_websocket_accepts_ticket_once_or_key(walled: Walled) -> None:
    url = walled(api_key=API)
    key = f"Authorization: Bearer {API}"
    issued = exchange(url, request("POST /api/ws-ticket", key, "Content-Length: 0"))
    ticket = issued.body.split(b'"')[3].decode()
    assert issued.headers["cache-control"] == "no-store"
    refused = exchange(url, handshake("/echo"))
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    statuses = [exchange(url, handshake(f"/echo?ticket={sent}")).status for sent in (ticket, ticket, "made-up", API)]
    assert statuses == [101, 401, 401, 401]
    assert exchange(url, handshake("/echo", key)).status == 101
    assert exchange(url, request("POST /api/ws-ticket", "Content-Length: 0")).status == 401


def test_tickets_expire_and_oldest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    who = Principal("key:api", frozenset(("monitor",)))
    issued = Tickets()
    first, *others = [issued.issue(who) for _ in range(1025)]
    assert issued.redeem(first) is None
    assert issued.redeem(others[0]) == who
    monkeypatch.setattr(auth, "TICKET_LIFETIME_SECONDS", -1)
    assert issued.redeem(issued.issue(who)) is None
