"""`/api/saes`: the SAEs that are on disk, and how another one gets there or leaves."""

import asyncio

from fastapi import APIRouter, Request, Response
from msgspec.structs import replace

from millm.access import requires
from millm.admin.answers import answered, listed
from millm.admin.deleting import deleting
from millm.admin.ids import Download, IdInAddress
from millm.admin.route import AdminRoute, told
from millm.events import LibraryChanged
from millm.hub.downloads import asked_for
from millm.hub.entries import Freed, SaeEntry
from millm.hub.jobs import Job, Preview
from millm.state import State

router = APIRouter(prefix="/saes", route_class=AdminRoute)


@router.get("", dependencies=[requires("monitor")], responses=listed(SaeEntry, "saes"))
async def list_saes(request: Request) -> Response:
    """Every SAE of the library, those that are not whole included."""
    state: State = request.app.state.millm
    entries = await asyncio.to_thread(state.hub.library.saes)
    return told({"saes": [_with_use(state, entry) for entry in entries]})


@router.get("/{id:path}", dependencies=[requires("monitor")], responses=answered(SaeEntry))
async def get_sae(request: Request, id: IdInAddress) -> Response:
    """One SAE of the library."""
    state: State = request.app.state.millm
    return told(_with_use(state, await asyncio.to_thread(state.hub.library.sae, id)))


@router.delete("/{id:path}", dependencies=[requires("admin")], responses=answered(Freed))
async def delete_sae(request: Request, id: IdInAddress) -> Response:
    """Remove an SAE's files; those that another entry shares stay."""
    state: State = request.app.state.millm
    library = state.hub.library
    name = (await asyncio.to_thread(library.sae, id)).id
    async with deleting(state, "sae", name):
        freed = await asyncio.to_thread(library.delete_sae, name)
    state.events.publish(LibraryChanged(kind="sae", name=name))
    return told(freed)


@router.post("", dependencies=[requires("admin")], status_code=202, responses=answered(Job, 202))
async def download_sae(request: Request, body: Download) -> Response:
    """Fetch an SAE from Hugging Face, in the background: the job tells how far it is."""
    state: State = request.app.state.millm
    return told(await state.hub.downloads.start(asked_for(body.id, "sae", body.revision)), 202)


@router.post("/preview", dependencies=[requires("admin")], responses=answered(Preview))
async def preview_sae(request: Request, body: Download) -> Response:
    """What a download would bring: which files, and how large they are."""
    state: State = request.app.state.millm
    return told(await state.hub.downloads.preview(asked_for(body.id, "sae", body.revision)))


def _with_use(state: State, entry: SaeEntry) -> SaeEntry:
    return replace(entry, is_attached=entry.id in state.saes)
