"""Shared parts of the admin routes: id types, strict bodies, error statuses (422 for an invalid request) and guards."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from millm.api.json_body import JsonRoute
from millm.errors import InUse, InvalidRequest
from millm.hub.jobs import ArtifactKind
from millm.protocol.errors import error_body, error_response, error_sentence, field_path
from millm.state import State

UNPROCESSABLE = 422
MAX_ID_LENGTH = 512
"""Characters of `owner/name/path/inside@revision`."""


async def _server_state(request: Request) -> State:
    state: State = request.app.state.millm
    return state


ServerState = Annotated[State, Depends(_server_state)]


@asynccontextmanager
async def deletion_guard(state: State, kind: ArtifactKind, id: str) -> AsyncIterator[None]:
    """Prevents a concurrent load or attach of what is deleted. Raises InUse."""
    _refuse_in_use(state, kind, id)
    if state.change_lock.locked():  # by a change of another model or SAE, which may take minutes
        yield
        return
    async with state.change_lock:
        _refuse_in_use(state, kind, id)
        yield


def is_loaded(state: State, id: str) -> bool:
    return state.model is not None and state.model.name == id


def _refuse_in_use(state: State, kind: ArtifactKind, id: str) -> None:
    if kind == "model" and is_loaded(state, id):
        raise InUse(f"{id} is loaded; unload it first")
    if kind == "sae" and id in state.saes:
        raise InUse(f"{id} is attached; detach it first")
    if state.changing and state.changing.name == id:
        raise InUse(f"{id} is about to be used ({state.changing.what}); wait for that, or cancel it")


def _check_id(text: str) -> str:
    if not text.isprintable() or "\\" in text:
        raise ValueError("it cannot hold control characters or backslashes")
    if text.startswith(("/", "~")) or text != text.strip():
        raise ValueError("it is a name such as `owner/name`, not a path")
    if ".." in text.partition("@")[0].split("/"):
        raise ValueError("it cannot hold `..`")
    return text


def _check_revision(text: str) -> str:
    if ".." in text:
        raise ValueError("it cannot hold `..`")
    return text


PublicId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), AfterValidator(_check_id)]
PathId = Annotated[PublicId, Path()]
Revision = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9._\-/]+$"), AfterValidator(_check_revision)]


class StrictBody(BaseModel):
    """A request body without unknown fields or type coercion."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Download(StrictBody):
    """A Hugging Face repository."""

    id: Annotated[PublicId, Field(description="`owner/name`; of an SAE `owner/name/path/inside`.")]
    revision: Annotated[Revision, Field(description="A branch, a tag or a commit.")] = "main"


class AdminRoute(JsonRoute):
    """Responds with 422, instead of 400, to invalid requests other than malformed JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_admin(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                first = error.errors()[0]
                if first["type"] == "json_invalid":
                    raise
                invalid = InvalidRequest(error_sentence(first), param=field_path(first))
            except InvalidRequest as error:
                invalid = error
            return error_response(UNPROCESSABLE, error_body(invalid))

        return handle_admin


def json_response(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
