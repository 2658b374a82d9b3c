"""`/api/saes`: the SAEs that are on disk, and how another one gets there or leaves."""

import asyncio

from fastapi import APIRouter, Request, Response
from msgspec.structs import replace

from millm.access import requires
from millm.admin.answers import list_response, struct_response
from millm.admin.deleting import deletion_guard
from millm.admin.ids import Download, PathId
from millm.admin.route import AdminRoute, json_response
from millm.events import LibraryChanged
from millm.hub.entries import DeletionResult, SaeEntry
from millm.hub.jobs import DownloadJob, DownloadPreview, parse_spec
from millm.state import State

router = APIRouter(prefix="/saes", route_class=AdminRoute)


@router.get("", dependencies=[requires("monitor")], responses=list_response(SaeEntry, "saes"))
async def list_saes(request: Request) -> Response:
    """Every SAE of the library, those that are not whole included."""
    state: State = request.app.state.millm
    entries = await asyncio.to_thread(state.hub.library.saes)
    return json_response({"saes": [_with_is_attached(state, entry) for entry in entries]})


@router.get("/{id:path}", dependencies=[requires("monitor")], responses=struct_response(SaeEntry))
async def get_sae(request: Request, id: PathId) -> Response:
    """One SAE of the library."""
    state: State = request.app.state.millm
    return json_response(_with_is_attached(state, await asyncio.to_thread(state.hub.library.sae, id)))


@router.delete("/{id:path}", dependencies=[requires("admin")], responses=struct_response(DeletionResult))
async def delete_sae(request: Request, id: PathId) -> Response:
    """Remove an SAE's files; those that another entry shares stay."""
    state: State = request.app.state.millm
    library = state.hub.library
    name = (await asyncio.to_thread(library.sae, id)).id
    async with deletion_guard(state, "sae", name):
        freed = await asyncio.to_thread(library.delete_sae, name)
    state.events.publish(LibraryChanged(kind="sae", name=name))
    return json_response(freed)


@router.post("", dependencies=[requires("admin")], status_code=202, responses=struct_response(DownloadJob, 202))
async def download_sae(request: Request, body: Download) -> Response:
    """Fetch an SAE from Hugging Face, in the background: the job tells how far it is."""
    state: State = request.app.state.millm
    return json_response(await state.hub.downloads.start(parse_spec(body.id, "sae", body.revision)), 202)


@router.post("/preview", dependencies=[requires("admin")], responses=struct_response(DownloadPreview))
async def preview_sae(request: Request, body: Download) -> Response:
    """What a download would bring: which files, and how large they are."""
    state: State = request.app.state.millm
    return json_response(await state.hub.downloads.preview(parse_spec(body.id, "sae", body.revision)))


def _with_is_attached(state: State, entry: SaeEntry) -> SaeEntry:
    return replace(entry, is_attached=entry.id in state.saes)
