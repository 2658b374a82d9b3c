"""`/api/models`: the models that are on disk, and how another one gets there or leaves."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response
from msgspec.structs import replace
from pydantic import Field

from millm.access import requires
from millm.admin.answers import list_response, struct_response
from millm.admin.deleting import deletion_guard, is_loaded
from millm.admin.ids import Download, PathId, StrictBody
from millm.admin.route import AdminRoute, json_response
from millm.events import LibraryChanged
from millm.hub.entries import DeletionResult, ModelEntry
from millm.hub.jobs import DownloadJob, DownloadPreview, RemoteModel, parse_spec
from millm.openai.disconnect import cancel_on_disconnect
from millm.state import State

router = APIRouter(prefix="/models", route_class=AdminRoute)


class HubSearch(StrictBody):
    """Words of a model's name, on Hugging Face."""

    text: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    limit: Annotated[int, Field(ge=1, le=100)] = 20


@router.get("", dependencies=[requires("monitor")], responses=list_response(ModelEntry, "models"))
async def list_models(request: Request) -> Response:
    """Every model of the library, those that are not whole included."""
    state: State = request.app.state.millm
    entries = await asyncio.to_thread(state.hub.library.models)
    return json_response({"models": [_with_is_loaded(state, entry) for entry in entries]})


@router.get("/{id:path}", dependencies=[requires("monitor")], responses=struct_response(ModelEntry))
async def get_model(request: Request, id: PathId) -> Response:
    """One model of the library."""
    state: State = request.app.state.millm
    return json_response(_with_is_loaded(state, await asyncio.to_thread(state.hub.library.model, id)))


@router.delete("/{id:path}", dependencies=[requires("admin")], responses=struct_response(DeletionResult))
async def delete_model(request: Request, id: PathId) -> Response:
    """Remove a model's files; those that another entry shares stay."""
    state: State = request.app.state.millm
    library = state.hub.library
    name = (await asyncio.to_thread(library.model, id)).id
    async with deletion_guard(state, "model", name):
        freed = await asyncio.to_thread(library.delete_model, name)
    state.events.publish(LibraryChanged(kind="model", name=name))
    return json_response(freed)


@router.post("", dependencies=[requires("admin")], status_code=202, responses=struct_response(DownloadJob, 202))
async def download_model(request: Request, body: Download) -> Response:
    """Fetch a model from Hugging Face, in the background: the job tells how far it is."""
    state: State = request.app.state.millm
    return json_response(await state.hub.downloads.start(parse_spec(body.id, "model", body.revision)), 202)


@router.post("/preview", dependencies=[requires("admin")], responses=struct_response(DownloadPreview))
async def preview_model(request: Request, body: Download) -> Response:
    """What a download would bring: sizes, licence, what the model is."""
    state: State = request.app.state.millm
    return json_response(await state.hub.downloads.preview(parse_spec(body.id, "model", body.revision)))


@router.post("/search", dependencies=[requires("admin")], responses=list_response(RemoteModel, "models"))
async def search_models(request: Request, body: HubSearch) -> Response:
    """Models on Hugging Face that this server could load (safetensors), the most fetched first."""
    state: State = request.app.state.millm
    found = await cancel_on_disconnect(request, state.hub.downloads.search(body.text.strip(), body.limit))
    return json_response({"models": found})


def _with_is_loaded(state: State, entry: ModelEntry) -> ModelEntry:
    return replace(entry, is_loaded=is_loaded(state, entry.id))
