"""`/api/jobs`: downloads, from asked for to installed."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from millm.access import requires
from millm.admin.answers import answered, listed
from millm.admin.route import AdminRoute, told
from millm.hub.downloads import Downloads
from millm.hub.jobs import Job

router = APIRouter(prefix="/jobs", route_class=AdminRoute)

JobId = Annotated[str, Path(max_length=64)]


@router.get("", dependencies=[requires("monitor")], responses=listed(Job, "jobs"))
async def list_jobs(request: Request) -> Response:
    """All of them, the newest first."""
    return told({"jobs": _downloads(request).jobs()})


@router.get("/{id}", dependencies=[requires("monitor")], responses=answered(Job))
async def get_job(request: Request, id: JobId) -> Response:
    """One job."""
    return told(_downloads(request).find(id))


@router.post("/{id}/cancel", dependencies=[requires("admin")], responses=answered(Job))
async def cancel_job(request: Request, id: JobId) -> Response:
    """End a download; the files that are whole stay."""
    return told(await _downloads(request).cancel(id))


@router.post("/{id}/resume", dependencies=[requires("admin")], responses=answered(Job))
async def resume_job(request: Request, id: JobId) -> Response:
    """Go on with a download that was interrupted, cancelled or has failed."""
    return told(await _downloads(request).resume(id))


def _downloads(request: Request) -> Downloads:
    downloads: Downloads = request.app.state.millm.hub.downloads
    return downloads
