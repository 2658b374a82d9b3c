"""The HTTP application: the OpenAI surface, the health checks and the start page."""

from fastapi import FastAPI
from starlette.responses import JSONResponse

from millm import __version__, openai, startpage
from millm.openai.failures import install_error_handlers
from millm.state import State


def create_app(state: State) -> FastAPI:
    app = FastAPI(title="miLLM", version=__version__, description="Steered inference, OpenAI-compatible.")
    app.state.millm = state
    install_error_handlers(app)
    app.include_router(openai.router)
    app.include_router(startpage.router)
    app.add_api_route("/healthz", _healthz, methods=["GET"], include_in_schema=False)
    app.add_api_route("/readyz", lambda: _readyz(state), methods=["GET"], include_in_schema=False)
    return app


async def _healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


def _readyz(state: State) -> JSONResponse:
    """A model answers."""
    status = state.engine.status if state.model else "loading"
    return JSONResponse({"status": status}, 200 if status == "ready" else 503)
