"""`/api/models/load`, `unload`, `cancel` and `estimate`: which model of the library is in memory.

`/api/models`: the models that are on disk, and how another one gets there or leaves.
"""

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
from millm.lifecycle import models
from millm.lifecycle.changes import wait_until_started
from millm.lifecycle.models import estimate_memory
from millm.state import State
from millm.status import ModelSpec, ServerStatus

loading_router = APIRouter(prefix="/models", route_class=AdminRoute)


class LoadOptions(StrictBody):
    """A model of the library, and how it is loaded; what is left out is as the server's settings say."""

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


@loading_router.post("/load", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def load(request: Request, body: Load) -> Response:
    """Load a model of the library in place of the one that answers; → the status, once it does.

    It goes on when the client leaves; `/cancel` gives it up.
    """
    state: State = request.app.state.millm
    await wait_until_started(state)
    await models.load(state, body.spec, force=body.force)
    return json_response(server_status(state))


@loading_router.post("/unload", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def unload(request: Request) -> Response:
    """Let running answers end, then give the memory back; → the status."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    await models.unload(state)
    return json_response(server_status(state))


@loading_router.post("/cancel", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def cancel(request: Request) -> Response:
    """Give up the load that is under way: it ends as soon as it next reports, and what was there before answers on."""
    state: State = request.app.state.millm
    if state.load_in_progress is None:
        raise Conflict("nothing is being loaded that could be given up")
    models.cancel_load(state)
    return json_response(server_status(state))


@loading_router.post("/estimate", dependencies=[requires("monitor")], responses=struct_response(Estimate))
async def estimate(request: Request, body: EstimateBody) -> Response:
    """How much memory a model would take, and whether it fits."""
    state: State = request.app.state.millm
    return json_response(await asyncio.to_thread(estimate_memory, state, body.spec, body.saes))


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
