"""`/api/models`: load and unload models; list, download and delete the models of the library."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from msgspec.structs import replace
from pydantic import Field

from millm.api.admin.openapi import list_response, struct_response
from millm.api.admin.route import (
    AdminRoute,
    Download,
    PathId,
    PublicId,
    ServerState,
    StrictBody,
    deletion_guard,
    is_loaded,
    json_response,
)
from millm.api.admin.system import server_status
from millm.api.dependencies import requires
from millm.api.sse import cancel_on_disconnect
from millm.engine.messages import AttentionImplementation, DeviceMap, Quantization
from millm.errors import Conflict
from millm.events import LibraryChanged
from millm.hub.entries import DeletionResult, ModelEntry
from millm.hub.jobs import DownloadJob, DownloadPreview, RemoteModel, parse_spec
from millm.hub.memory_estimate import Estimate
from millm.lifecycle import models as lifecycle
from millm.lifecycle.changes import wait_until_started
from millm.lifecycle.models import estimate_memory
from millm.state import State
from millm.status import ModelSpec, ServerStatus

router = APIRouter(prefix="/models", route_class=AdminRoute)


class LoadOptions(StrictBody):
    """A model of the library and its load options; default: the server's settings."""

    id: PublicId
    quantization: Annotated[Quantization | None, Field(description="Through bitsandbytes.")] = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    device: Annotated[str | None, Field(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = None
    device_map: Annotated[DeviceMap | None, Field(description="`auto` spreads it over several GPUs.")] = None
    attention: AttentionImplementation | None = None
    slots: Annotated[int | None, Field(ge=1, le=256, description="Requests that run at once.")] = None
    context: Annotated[int | None, Field(ge=1, le=2**24, description="Tokens of one sequence.")] = None

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(**{name: getattr(self, name) for name in LoadOptions.model_fields})


class Load(LoadOptions):
    force: Annotated[bool, Field(description="Also where the estimate says that it does not fit.")] = False


class EstimateBody(LoadOptions):
    saes: Annotated[list[PublicId], Field(default_factory=list, max_length=64, description="SAEs to be attached.")]


@router.post("/load", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def load(state: ServerState, body: Load) -> Response:
    """Load a model of the library in place of the current one; returns the status after the load.

    The load continues if the client disconnects; `/cancel` cancels it.
    """
    await wait_until_started(state)
    await lifecycle.load(state, body.spec, force=body.force)
    return json_response(server_status(state))


@router.post("/unload", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def unload(state: ServerState) -> Response:
    """Wait for running answers, then free the memory; returns the status."""
    await wait_until_started(state)
    await lifecycle.unload(state)
    return json_response(server_status(state))


@router.post("/cancel", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def cancel(state: ServerState) -> Response:
    """Cancel the running load at its next progress report; the previous model answers again."""
    if state.load_in_progress is None:
        raise Conflict("no load is in progress")
    lifecycle.cancel_load(state)
    return json_response(server_status(state))


@router.post("/estimate", dependencies=[requires("monitor")], responses=struct_response(Estimate))
async def estimate(state: ServerState, body: EstimateBody) -> Response:
    """The memory that a model would need, and whether it fits."""
    return json_response(await asyncio.to_thread(estimate_memory, state, body.spec, body.saes))


class HubSearch(StrictBody):
    """A search of model names on Hugging Face."""

    text: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    limit: Annotated[int, Field(ge=1, le=100)] = 20


@router.get("", dependencies=[requires("monitor")], responses=list_response(ModelEntry, "models"))
async def list_models(state: ServerState) -> Response:
    """Every model of the library, including incomplete ones."""
    entries = await asyncio.to_thread(state.hub.library.models)
    return json_response({"models": [_with_is_loaded(state, entry) for entry in entries]})


@router.get("/{id:path}", dependencies=[requires("monitor")], responses=struct_response(ModelEntry))
async def get_model(state: ServerState, id: PathId) -> Response:
    """One model of the library."""
    return json_response(_with_is_loaded(state, await asyncio.to_thread(state.hub.library.model, id)))


@router.delete("/{id:path}", dependencies=[requires("admin")], responses=struct_response(DeletionResult))
async def delete_model(state: ServerState, id: PathId) -> Response:
    """Delete a model's files, except those that other entries share."""
    library = state.hub.library
    name = (await asyncio.to_thread(library.model, id)).id
    async with deletion_guard(state, "model", name):
        freed = await asyncio.to_thread(library.delete_model, name)
    state.events.publish(LibraryChanged(kind="model", name=name))
    return json_response(freed)


@router.post("", dependencies=[requires("admin")], status_code=202, responses=struct_response(DownloadJob, 202))
async def download_model(state: ServerState, body: Download) -> Response:
    """Download a model from Hugging Face in the background; the job has the progress."""
    return json_response(await state.hub.downloads.start(parse_spec(body.id, "model", body.revision)), 202)


@router.post("/preview", dependencies=[requires("admin")], responses=struct_response(DownloadPreview))
async def preview_model(state: ServerState, body: Download) -> Response:
    """Size, licence and facts of a model before its download."""
    return json_response(await state.hub.downloads.preview(parse_spec(body.id, "model", body.revision)))


@router.post("/search", dependencies=[requires("admin")], responses=list_response(RemoteModel, "models"))
async def search_models(request: Request, state: ServerState, body: HubSearch) -> Response:
    """Models on Hugging Face that this server can load (safetensors), most downloaded first."""
    models = await cancel_on_disconnect(request, state.hub.downloads.search(body.text.strip(), body.limit))
    return json_response({"models": models})


def _with_is_loaded(state: State, entry: ModelEntry) -> ModelEntry:
    return replace(entry, is_loaded=is_loaded(state, entry.id))
