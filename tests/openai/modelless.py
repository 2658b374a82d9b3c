"""The OpenAI surface with everything but a model: what passes validation is answered 503."""

from fastapi import FastAPI
from starlette.testclient import TestClient

from millm.engine.client import EngineClient
from millm.openai import router
from millm.openai.failures import install_error_handlers
from millm.profiles.store import ProfileStore
from millm.settings import Settings
from millm.state import State


def without_model() -> TestClient:
    app = FastAPI()
    app.state.millm = State(Settings(), EngineClient(max_queue=8), ProfileStore())
    install_error_handlers(app)
    app.include_router(router)
    return TestClient(app, raise_server_exceptions=False)
