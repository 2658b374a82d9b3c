"""The HTTP application: the OpenAI surface, miLLM's own, the health checks and the start page."""

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse

from millm import __version__, admin, openai, startpage
from millm.openai.failures import install_error_handlers
from millm.state import State


def create_app(state: State) -> FastAPI:
    app = FastAPI(title="miLLM", version=__version__, description="Steered inference, OpenAI-compatible.")
    app.state.millm = state
    install_error_handlers(app)
    app.include_router(openai.router)
    app.include_router(admin.router)
    app.include_router(startpage.router)
    app.add_api_route("/healthz", _healthz, methods=["GET"], include_in_schema=False)
    app.add_api_route("/readyz", _readyz, methods=["GET"], include_in_schema=False)
    return app


async def _healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


async def _readyz(request: Request) -> JSONResponse:
    """A model answers, even if something was given up for that."""
    state: State = request.app.state.millm
    told = {"status": state.status, "degraded": state.engine.degraded}
    return JSONResponse(told, 200 if state.status == "ready" else 503)
