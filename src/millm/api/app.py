"""Which failure becomes which answer, for every route of the application.

The page at `/`: what is loaded, which profiles there are, and how to send the first steered request.

The page under `/ui/`: its files as they were built, and `index.html` for every address that is one of its pages.

The HTTP application: the OpenAI surface, miLLM's own, the health checks and the start page.
"""

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
"""nginx's status for its log; nobody reads this answer."""
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
    """Make `app` answer every failure in the envelope, put a request id on every answer, and log and count its end.

    `largest_body`: bytes; more is refused.
    """
    app.add_exception_handler(MillmError, _on_millm_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_middleware(
        RequestMiddleware, largest_body=max_body_bytes, on_end=partial(report_request_end, meter or Meter())
    )


async def _on_millm_error(connection: HTTPConnection, failure: Exception) -> Response:
    answer = failure_response(failure)
    if isinstance(connection, WebSocket):
        await _close_websocket(connection, answer)
    return answer


async def _close_websocket(websocket: WebSocket, answer: Response) -> None:
    """Whoever has not been let in gets the answer itself; within a conversation it can only be ended."""
    has_begun = websocket.application_state is not WebSocketState.CONNECTING
    if has_begun or "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close(_WS_INTERNAL_ERROR)
    else:
        await websocket.send_denial_response(answer)


async def _on_validation_error(_: HTTPConnection, failure: Exception) -> Response:
    first = cast(RequestValidationError, failure).errors()[0]
    return failure_response(InvalidRequest(error_sentence(first), param=field_path(first)))


async def _on_http_exception(connection: HTTPConnection, failure: Exception) -> Response:
    refused = cast(HTTPException, failure)
    status, headers = refused.status_code, dict(refused.headers or {})
    code, message = _ERRORS_BY_STATUS.get(status, (InvalidRequest.code, f"{HTTPStatus(status).phrase}."))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        code, message = "request_too_large", refused.detail
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(connection)))
    error = {"message": message, "type": InvalidRequest.type, "param": None, "code": code}
    return error_response(status, {"error": error}, headers)


def _methods(connection: HTTPConnection) -> set[str]:
    """All that the address takes: each of its routes knows only its own."""
    known = ("GET", "POST", "PUT", "PATCH", "DELETE")
    taken = {method for method in known if _is_taken(connection, method)}
    return {*taken, "HEAD"} if "GET" in taken else taken


def _is_taken(connection: HTTPConnection, method: str) -> bool:
    asked = {**connection.scope, "method": method}
    return any(route.matches(asked)[0] is Match.FULL for route in connection.app.routes)


async def _on_client_gone(_: HTTPConnection, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


start_page_router = APIRouter()
_START_PAGE_SOURCE = files("millm.api").joinpath("startpage.html").read_text("utf-8")
_START_PAGE_TEMPLATE = Environment(autoescape=True).from_string(_START_PAGE_SOURCE)


def _start_page_csp() -> str:
    """Nothing but the page's own style, which is known by its hash."""
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
"""Where the build puts it; absent where that was left out."""
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
    """What a folder held when the server started: nothing else is ever read."""

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
        """Files have a dot in their last part, pages have none. Raises NotFound."""
        if "." not in path.rpartition("/")[2]:
            return self._page()
        file = self._files.get(path)
        if file is None:
            raise NotFound("The page has no such file; it may be of another version: load it again.")
        headers = {"Cache-Control": _IMMUTABLE_CACHE if path.startswith("assets/") else "no-cache"}
        return FileResponse(file, media_type=mimetypes.guess_type(path)[0], headers=headers)

    def _page(self) -> HTMLResponse:
        """With a nonce of its own each time: no style but the page's is let in."""
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
        openapi_url=None,  # it would be made in the loop, and every stream would wait for that
        docs_url=None,  # it loads scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from the Host header
        responses=ERROR_RESPONSES,
    )
    app.state.millm = state
    rules = RequestRules.allowing(state.settings.allowed_hosts, state.settings.allowed_origins)
    app.add_middleware(GuardMiddleware, rules=rules, doors=state.drain_gate)
    install_error_handlers(app, state.settings.max_body_bytes, state.meter)
    app.add_middleware(
        ResponseHeadersMiddleware, rules=rules
    )  # the last is the outermost: what the others answer gets them too
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
    """FastAPI's, with the answers under `/api`, which are structs and unknown to it."""
    document = FastAPI.openapi(app)
    document["components"]["schemas"] |= component_schemas()
    return document


def _openapi(request: Request) -> JSONResponse:
    """The document of this very server; it takes half a second to make, once."""
    return JSONResponse(request.app.openapi())


async def _healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


async def _readyz(request: Request) -> JSONResponse:
    """A model answers, even if something was given up for that."""
    state: State = request.app.state.millm
    told = {"status": state.status, "degraded": state.engine.degraded_reason}
    return JSONResponse(told, 200 if state.status == "ready" else 503)
