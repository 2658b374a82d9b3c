"""A public id as clients send it: a name, never a path. Whether there is such a thing, the library says.

What may be deleted: nothing that is in memory, or on its way there.

How a route under `/api` answers, and how it refuses: 400 for a body that is no JSON, 422 for what cannot be done.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from fastapi import Path, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from millm.api.json_body import JsonRoute
from millm.errors import InUse, InvalidRequest
from millm.hub.jobs import ArtifactKind
from millm.protocol.errors import error_body, error_response, error_sentence, field_path
from millm.state import State


@asynccontextmanager
async def deletion_guard(state: State, kind: ArtifactKind, id: str) -> AsyncIterator[None]:
    """While nobody loads or attaches it. Raises InUse."""
    _refuse_in_use(state, kind, id)
    if state.change_lock.locked():  # by another model or SAE, which may take minutes
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
        raise InUse(f"{id} is about to be used ({state.changing.what}); wait for that, or give it up")


MAX_ID_LENGTH = 512
"""Characters: `owner/name/path/inside@revision`."""


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
    """Of a request: what it does not name is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Download(StrictBody):
    """A repository of Hugging Face's."""

    id: Annotated[PublicId, Field(description="`owner/name`; of an SAE `owner/name/path/inside`.")]
    revision: Annotated[Revision, Field(description="A branch, a tag or a commit.")] = "main"


UNPROCESSABLE = 422


class AdminRoute(JsonRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_admin(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as wrong:
                first = wrong.errors()[0]
                if first["type"] == "json_invalid":
                    raise
                return _unprocessable(InvalidRequest(error_sentence(first), param=field_path(first)))
            except InvalidRequest as refused:
                return _unprocessable(refused)

        return handle_admin


def _unprocessable(refused: InvalidRequest) -> Response:
    return error_response(UNPROCESSABLE, error_body(refused))


def json_response(value: object, status: int = 200) -> Response:
    """The answer with `value` as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
