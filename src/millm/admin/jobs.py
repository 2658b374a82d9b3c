"""`/api/jobs`: downloads, from asked for to installed."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from millm.access import requires
from millm.admin.answers import list_response, struct_response
from millm.admin.route import AdminRoute, json_response
from millm.hub.downloads import Downloads
from millm.hub.jobs import DownloadJob

jobs_router = APIRouter(prefix="/jobs", route_class=AdminRoute)

JobId = Annotated[str, Path(max_length=64)]


@jobs_router.get("", dependencies=[requires("monitor")], responses=list_response(DownloadJob, "jobs"))
async def list_jobs(request: Request) -> Response:
    """All of them, the newest first."""
    return json_response({"jobs": _downloads(request).jobs()})


@jobs_router.get("/{id}", dependencies=[requires("monitor")], responses=struct_response(DownloadJob))
async def get_job(request: Request, id: JobId) -> Response:
    """One job."""
    return json_response(_downloads(request).find(id))


@jobs_router.post("/{id}/cancel", dependencies=[requires("admin")], responses=struct_response(DownloadJob))
async def cancel_job(request: Request, id: JobId) -> Response:
    """End a download; the files that are whole stay."""
    return json_response(await _downloads(request).cancel(id))


@jobs_router.post("/{id}/resume", dependencies=[requires("admin")], responses=struct_response(DownloadJob))
async def resume_job(request: Request, id: JobId) -> Response:
    """Go on with a download that was interrupted, cancelled or has failed."""
    return json_response(await _downloads(request).resume(id))


def _downloads(request: Request) -> Downloads:
    downloads: Downloads = request.app.state.millm.hub.downloads
    return downloads
