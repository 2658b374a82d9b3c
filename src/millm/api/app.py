"""The FastAPI application: error handlers, routers, health checks, the start page and the UI under `/ui/`."""

import base64
import hashlib
import mimetypes
import secrets
from functools import cache, partial
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import Match
from starlette.websockets import WebSocket, WebSocketState

from millm import __version__
from millm.api import admin, metrics, openai
from millm.api.admin.openapi import component_schemas
from millm.api.middleware import (
    DEFAULT_MAX_BODY_BYTES,
    GuardMiddleware,
    RequestMiddleware,
    RequestRules,
    ResponseHeadersMiddleware,
    report_request_end,
)
from millm.auth import split_keys
from millm.errors import InvalidRequest, MillmError, NotFound
from millm.lifecycle.selection import model_cards
from millm.monitoring.metrics import Meter
from millm.protocol.errors import error_response, error_sentence, failure_response, field_path
from millm.protocol.response import ERROR_RESPONSES
from millm.state import State

CLIENT_CLOSED_REQUEST = 499
"""nginx's status; the client never receives it."""
_ERRORS_BY_STATUS = {
    404: (NotFound.code, "Nothing is served at this address; OpenAI's API is under /v1."),
    405: (
        "method_not_supported",
        "This address does not take that method; the header `Allow` names what it takes.",
    ),
}
_WS_INTERNAL_ERROR = 1011
"""https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1"""


def install_error_handlers(
    app: FastAPI, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES, meter: Meter | None = None
) -> None:
    """Install the error handlers and RequestMiddleware: every failure has the error format and a request id."""
    app.add_exception_handler(MillmError, _on_millm_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_middleware(
        RequestMiddleware, max_body_bytes=max_body_bytes, on_end=partial(report_request_end, meter or Meter())
    )


async def _on_millm_error(connection: HTTPConnection, failure: Exception) -> Response:
    response = failure_response(failure)
    if isinstance(connection, WebSocket):
        await _close_websocket(connection, response)
    return response


async def _close_websocket(websocket: WebSocket, response: Response) -> None:
    """Before the handshake the response itself is sent; after it the socket can only be closed."""
    is_accepted = websocket.application_state is not WebSocketState.CONNECTING
    if is_accepted or "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close(_WS_INTERNAL_ERROR)
    else:
        await websocket.send_denial_response(response)


async def _on_validation_error(_: HTTPConnection, failure: Exception) -> Response:
    first = cast(RequestValidationError, failure).errors()[0]
    return failure_response(InvalidRequest(error_sentence(first), param=field_path(first)))


async def _on_http_exception(connection: HTTPConnection, failure: Exception) -> Response:
    exception = cast(HTTPException, failure)
    status, headers = exception.status_code, dict(exception.headers or {})
    code, message = _ERRORS_BY_STATUS.get(status, (InvalidRequest.code, f"{HTTPStatus(status).phrase}."))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        code, message = "request_too_large", exception.detail
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(connection)))
    error = {"message": message, "type": InvalidRequest.type, "param": None, "code": code}
    return error_response(status, {"error": error}, headers)


def _methods(connection: HTTPConnection) -> set[str]:
    """Methods of all routes at this address; a route's own `Allow` names only its own."""
    allowed = {method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if _has_route(connection, method)}
    return {*allowed, "HEAD"} if "GET" in allowed else allowed


def _has_route(connection: HTTPConnection, method: str) -> bool:
    scope = {**connection.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in connection.app.routes)


async def _on_client_gone(_: HTTPConnection, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


start_page_router = APIRouter()
_START_PAGE_SOURCE = files("millm.api").joinpath("startpage.html").read_text("utf-8")
_START_PAGE_TEMPLATE = Environment(autoescape=True).from_string(_START_PAGE_SOURCE)


def _start_page_csp() -> str:
    """Allows only the page's own style, by its hash."""
    style = _START_PAGE_SOURCE.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"


_START_PAGE_HEADERS = {"Content-Security-Policy": _start_page_csp()}


@start_page_router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def start_page(request: Request) -> HTMLResponse:
    state: State = request.app.state.millm
    page = _START_PAGE_TEMPLATE.render(
        base_url=str(request.base_url),
        model=state.model,
        saes=list(state.saes.values()),
        cards=[card for card in model_cards(state) if card.profile],
        active=state.active,
        has_key=bool(split_keys(state.settings.api_key)),
    )
    return HTMLResponse(page, headers=_START_PAGE_HEADERS)


WEB_FOLDER = Path(__file__).parents[1] / "web"
"""Output of the UI build; absent without one."""
_IMMUTABLE_CACHE = "public, max-age=31536000, immutable"
_NONCE_META = '<meta name="csp-nonce" content="'
_WEB_PAGE_CSP = (
    "default-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_NOT_BUILT_HTML = """<!doctype html><html lang="en"><meta charset="utf-8"><title>miLLM</title>
<h1>The page is not built</h1>
<p>The server answers all the same. To build the page: <code>pip install -e .</code>, without MILLM_SKIP_UI.</p></html>
"""


class WebPage:
    """The UI under `/ui/`: files that existed at start, and `index.html` for the address of every page."""

    def __init__(self, web: Path = WEB_FOLDER) -> None:
        self._files = {file.relative_to(web).as_posix(): file for file in web.rglob("*") if file.is_file()}
        index = self._files.get("index.html")
        self._index = index.read_text("utf-8") if index else None
        self.router = APIRouter(prefix="/ui", include_in_schema=False)
        self.router.add_api_route("", self.redirect_to_page, methods=["GET", "HEAD"])
        self.router.add_api_route("/{path:path}", self.serve_path, methods=["GET", "HEAD"])

    async def redirect_to_page(self) -> RedirectResponse:
        return RedirectResponse("ui/")

    async def serve_path(self, path: str) -> Response:
        """Files have a dot in their last part, pages do not. Raises NotFound."""
        if "." not in path.rpartition("/")[2]:
            return self._page()
        file = self._files.get(path)
        if file is None:
            raise NotFound("The page has no such file; after an update, reload the page.")
        headers = {"Cache-Control": _IMMUTABLE_CACHE if path.startswith("assets/") else "no-cache"}
        return FileResponse(file, media_type=mimetypes.guess_type(path)[0], headers=headers)

    def _page(self) -> HTMLResponse:
        """Every response has a new nonce, for the page's own styles."""
        if self._index is None:
            return HTMLResponse(_NOT_BUILT_HTML, 503, headers={"Cache-Control": "no-cache"})
        nonce = secrets.token_urlsafe(16)
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _WEB_PAGE_CSP.format(nonce=nonce)}
        return HTMLResponse(self._index.replace(_NONCE_META, _NONCE_META + nonce), headers=headers)


def create_app(state: State) -> FastAPI:
    app = FastAPI(
        title="miLLM",
        version=__version__,
        description="Steered inference, OpenAI-compatible.",
        openapi_url=None,  # FastAPI builds it on the event loop, which stalls all streams
        docs_url=None,  # it loads scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from the Host header
        responses=ERROR_RESPONSES,
    )
    app.state.millm = state
    rules = RequestRules.allowing(state.settings.allowed_hosts, state.settings.allowed_origins)
    app.add_middleware(GuardMiddleware, rules=rules, drain_gate=state.drain_gate)
    install_error_handlers(app, state.settings.max_body_bytes, state.meter)
    app.add_middleware(ResponseHeadersMiddleware, rules=rules)  # added last, so outermost
    app.include_router(openai.router)
    app.include_router(admin.router)
    app.include_router(metrics.router)
    app.include_router(start_page_router)
    app.include_router(WebPage().router)
    app.add_api_route("/openapi.json", _openapi, methods=["GET"], include_in_schema=False)
    app.add_api_route("/healthz", _healthz, methods=["GET"], include_in_schema=False)
    app.add_api_route("/readyz", _readyz, methods=["GET"], include_in_schema=False)
    app.openapi = cache(partial(_document, app))  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document with the schemas of msgspec structs, which are the responses under `/api`."""
    document = FastAPI.openapi(app)
    document["components"]["schemas"] |= component_schemas()
    return document


def _openapi(request: Request) -> JSONResponse:
    """Generated once, in half a second."""
    return JSONResponse(request.app.openapi())


async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


async def _readyz(request: Request) -> JSONResponse:
    """200 when a model is ready, also when degraded."""
    state: State = request.app.state.millm
    content = {"status": state.status, "degraded": state.engine.degraded_reason}
    return JSONResponse(content, 200 if state.status == "ready" else 503)
