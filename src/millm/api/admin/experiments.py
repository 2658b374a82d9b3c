"""`/api/compare`, `/api/sweep` and `/api/calibrate`: the effect of a steering's strength on an answer."""

from fastapi import APIRouter, Request, Response

from millm.api.admin.openapi import struct_response
from millm.api.admin.route import AdminRoute, ServerState, json_response
from millm.api.dependencies import requires
from millm.api.sse import cancel_on_disconnect, stream_events
from millm.experiments.calibrate import calibrate, plan_calibration
from millm.experiments.compare import collect_comparison, plan_comparison, stream_comparison
from millm.experiments.schemas import (
    CalibrateRequest,
    CompareRequest,
    Comparison,
    SteeringCalibration,
    SweepRequest,
    SweepResult,
)
from millm.experiments.sweep import collect_sweep, plan_sweep, stream_sweep

router = APIRouter(route_class=AdminRoute, dependencies=[requires("infer")])


@router.post("/compare", responses=struct_response(Comparison))
async def post_compare(body: CompareRequest, request: Request, state: ServerState) -> Response:
    """The same question with one seed: the base model's answer, the steered one, the system prompt's.

    Streamed, all at once: `{"column", "text"}` as it comes, an end of each column with its receipt, then where the
    steered answer first differs.
    """
    plan = await plan_comparison(state, body)
    if body.stream:
        return await stream_events(request, stream_comparison(state, request, plan))
    return json_response(await cancel_on_disconnect(request, collect_comparison(state, request, plan)))


@router.post("/sweep", responses=struct_response(SweepResult))
async def post_sweep(body: SweepRequest, request: Request, state: ServerState) -> Response:
    """All strengths at several multiples, with several seeds: each answer measured, then the means.

    Streamed, a point at a time; closing the connection ends it.
    """
    plan = await plan_sweep(state, body)
    if body.stream:
        return await stream_events(request, stream_sweep(state, request, plan))
    return json_response(await cancel_on_disconnect(request, collect_sweep(state, request, plan)))


@router.post("/calibrate", responses=struct_response(SteeringCalibration))
async def post_calibrate(body: CalibrateRequest, request: Request, state: ServerState) -> Response:
    """The largest multiple of all strengths within a guard. A suggestion, not applied."""
    return json_response(
        await cancel_on_disconnect(request, calibrate(state, request, await plan_calibration(state, body)))
    )
