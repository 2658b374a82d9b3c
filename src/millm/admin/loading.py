"""`/api/models/load`, `unload`, `cancel` and `estimate`: which model of the library is in memory."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from millm.access import requires
from millm.admin.answers import struct_response
from millm.admin.ids import PublicId, StrictBody
from millm.admin.route import AdminRoute, json_response
from millm.admin.status import server_status
from millm.engine.messages import AttentionImplementation, DeviceMap, Quantization
from millm.errors import Conflict
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
