"""`/api/attachments`: the SAEs that are on the loaded model."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from millm.access import requires
from millm.admin.answers import list_response, struct_response
from millm.admin.ids import PathId, PublicId, StrictBody
from millm.admin.route import AdminRoute, json_response
from millm.admin.status import server_status
from millm.engine.messages import SaeFacts
from millm.lifecycle import saes
from millm.lifecycle.changes import wait_until_started
from millm.state import State
from millm.status import SaeSpec, ServerStatus

attachments_router = APIRouter(prefix="/attachments", route_class=AdminRoute)


class Attach(StrictBody):
    """An SAE of the library, and where on the model it belongs if its files do not say."""

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
async def list_attachments(request: Request) -> Response:
    """What is attached, and what that has found out."""
    state: State = request.app.state.millm
    return json_response({"attachments": [attached.facts for attached in state.saes.values()]})


@attachments_router.post("", dependencies=[requires("admin")], responses=struct_response(SaeFacts))
async def attach(request: Request, body: Attach) -> Response:
    """Attach an SAE while the model answers; → what that found out."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    attached = await saes.attach(state, SaeSpec(**body.model_dump()))
    return json_response(attached.facts)


@attachments_router.delete("/{sae:path}", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def detach(request: Request, sae: PathId) -> Response:
    """Take an SAE off the model while it answers; → the status."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    await saes.detach(state, sae)
    return json_response(server_status(state))
