"""The OpenAI API without a model: valid requests are answered 503."""

from fastapi import FastAPI
from starlette.testclient import TestClient

from millm.api.app import install_error_handlers
from millm.api.openai import router
from tests.fixtures.bare import bare_state


def without_model() -> TestClient:
    app = FastAPI()
    app.state.millm = bare_state()
    install_error_handlers(app)
    app.include_router(router)
    return TestClient(app, raise_server_exceptions=False)
