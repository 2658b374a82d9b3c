"""`/api/saes`: the SAEs of the library. `/api/attachments`: those on the loaded model. `/api/registry`: public SAEs."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response
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
    json_response,
)
from millm.api.admin.system import server_status
from millm.api.dependencies import requires
from millm.engine.messages import SaeFacts
from millm.events import LibraryChanged
from millm.hub import catalog
from millm.hub.catalog import Site
from millm.hub.entries import DeletionResult, SaeEntry
from millm.hub.jobs import DownloadJob, DownloadPreview, parse_spec
from millm.lifecycle import saes
from millm.lifecycle.changes import wait_until_started
from millm.state import State
from millm.status import SaeSpec, ServerStatus

attachments_router = APIRouter(prefix="/attachments", route_class=AdminRoute)


class Attach(StrictBody):
    """An SAE of the library; default: the hook point in its files."""

    id: PublicId
    hook_point: Annotated[
        str | None, Field(max_length=128, pattern=r"^[\w.]+$", description="Such as `blocks.20.hook_resid_post`.")
    ] = None
    layer: Annotated[int | None, Field(ge=0, le=10_000)] = None
    allow_model_mismatch: Annotated[
        bool, Field(description="Also if it was trained on another model of the same width; a warning stays.")
    ] = False
    replaces: Annotated[PublicId | None, Field(description="An SAE that is detached in the same moment.")] = None


@attachments_router.get("", dependencies=[requires("monitor")], responses=list_response(SaeFacts, "attachments"))
async def list_attachments(state: ServerState) -> Response:
    """The attached SAEs with the facts measured at attach."""
    return json_response({"attachments": [attached.facts for attached in state.saes.values()]})


@attachments_router.post("", dependencies=[requires("admin")], responses=struct_response(SaeFacts))
async def attach(state: ServerState, body: Attach) -> Response:
    """Attach an SAE while the model answers; returns its measured facts."""
    await wait_until_started(state)
    attached = await saes.attach(state, SaeSpec(**body.model_dump()))
    return json_response(attached.facts)


@attachments_router.delete("/{sae:path}", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def detach(state: ServerState, sae: PathId) -> Response:
    """Detach an SAE while the model answers; returns the status."""
    await wait_until_started(state)
    await saes.detach(state, sae)
    return json_response(server_status(state))


registry_router = APIRouter(prefix="/registry", route_class=AdminRoute)
MAX_WORD_LENGTH = 200
"""Characters of a search term."""
SearchWord = Annotated[str | None, Query(max_length=MAX_WORD_LENGTH)]


@registry_router.get("/saes", dependencies=[requires("monitor")], responses=struct_response(catalog.RegistryPage))
async def search_saes(
    model: SearchWord = None,
    layer: Annotated[int | None, Query(ge=0, le=10_000)] = None,
    site: Site | None = None,
    width: Annotated[int | None, Query(ge=1, le=10**9, description="Features.")] = None,
    most_l0: Annotated[
        float | None, Query(ge=0, le=10**9, description="Features that are active at a token, at most.")
    ] = None,
    text: Annotated[str, Query(max_length=MAX_WORD_LENGTH, description="Found in the id or the release.")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=10**6)] = 0,
) -> Response:
    """The SAEs that match all parameters: their number, and a page of them."""
    page = await asyncio.to_thread(
        catalog.search_saes,
        model=model,
        layer=layer,
        site=site,
        width=width,
        most_l0=most_l0,
        text=text,
        limit=limit,
        offset=offset,
    )
    return json_response(page)


@registry_router.get(
    "/models", dependencies=[requires("monitor")], responses=list_response(catalog.RegistryModel, "models")
)
async def list_shelf() -> Response:
    """The models that have public SAEs, with number, layers and widths of these."""
    return json_response({"models": await asyncio.to_thread(catalog.list_models)})


router = APIRouter(prefix="/saes", route_class=AdminRoute)


@router.get("", dependencies=[requires("monitor")], responses=list_response(SaeEntry, "saes"))
async def list_saes(state: ServerState) -> Response:
    """Every SAE of the library, including incomplete ones."""
    entries = await asyncio.to_thread(state.hub.library.saes)
    return json_response({"saes": [_with_is_attached(state, entry) for entry in entries]})


@router.get("/{id:path}", dependencies=[requires("monitor")], responses=struct_response(SaeEntry))
async def get_sae(state: ServerState, id: PathId) -> Response:
    """One SAE of the library."""
    return json_response(_with_is_attached(state, await asyncio.to_thread(state.hub.library.sae, id)))


@router.delete("/{id:path}", dependencies=[requires("admin")], responses=struct_response(DeletionResult))
async def delete_sae(state: ServerState, id: PathId) -> Response:
    """Delete an SAE's files, except those that other entries share."""
    library = state.hub.library
    name = (await asyncio.to_thread(library.sae, id)).id
    async with deletion_guard(state, "sae", name):
        freed = await asyncio.to_thread(library.delete_sae, name)
    state.events.publish(LibraryChanged(kind="sae", name=name))
    return json_response(freed)


@router.post("", dependencies=[requires("admin")], status_code=202, responses=struct_response(DownloadJob, 202))
async def download_sae(state: ServerState, body: Download) -> Response:
    """Download an SAE from Hugging Face in the background; the job has the progress."""
    return json_response(await state.hub.downloads.start(parse_spec(body.id, "sae", body.revision)), 202)


@router.post("/preview", dependencies=[requires("admin")], responses=struct_response(DownloadPreview))
async def preview_sae(state: ServerState, body: Download) -> Response:
    """Files and sizes of an SAE before its download."""
    return json_response(await state.hub.downloads.preview(parse_spec(body.id, "sae", body.revision)))


def _with_is_attached(state: State, entry: SaeEntry) -> SaeEntry:
    return replace(entry, is_attached=entry.id in state.saes)
