"""The HTTP application: the OpenAI surface, miLLM's own, the health checks and the start page."""

from functools import cache, partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse

from millm import __version__, admin, openai, startpage
from millm.admin.answers import component_schemas
from millm.guard.gate import GuardMiddleware
from millm.guard.headers import ResponseHeadersMiddleware
from millm.guard.rules import RequestRules
from millm.metrics import route as metrics
from millm.openai.failures import install_error_handlers
from millm.protocol.response import ERROR_RESPONSES
from millm.state import State
from millm.webpage import WebPage


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
    app.include_router(startpage.start_page_router)
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
