"""`/api/attachments`: the SAEs that are on the loaded model."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from millm.access import requires
from millm.admin.answers import answered, listed
from millm.admin.ids import Body, IdInAddress, PublicId
from millm.admin.route import AdminRoute, told
from millm.admin.status import status_of
from millm.desired import WantedSae
from millm.engine.messages import SaeFacts
from millm.lifecycle import saes
from millm.lifecycle.changes import started
from millm.state import State
from millm.status import ServerStatus

router = APIRouter(prefix="/attachments", route_class=AdminRoute)


class Attach(Body):
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


@router.get("", dependencies=[requires("monitor")], responses=listed(SaeFacts, "attachments"))
async def list_attachments(request: Request) -> Response:
    """What is attached, and what that has found out."""
    state: State = request.app.state.millm
    return told({"attachments": [attached.facts for attached in state.saes.values()]})


@router.post("", dependencies=[requires("admin")], responses=answered(SaeFacts))
async def attach(request: Request, body: Attach) -> Response:
    """Attach an SAE while the model answers; → what that found out."""
    state: State = request.app.state.millm
    await started(state)
    attached = await saes.attach(state, WantedSae(**body.model_dump()))
    return told(attached.facts)


@router.delete("/{sae:path}", dependencies=[requires("admin")], responses=answered(ServerStatus))
async def detach(request: Request, sae: IdInAddress) -> Response:
    """Take an SAE off the model while it answers; → the status."""
    state: State = request.app.state.millm
    await started(state)
    await saes.detach(state, sae)
    return told(status_of(state))
