"""`/api/compare`, `/api/sweep`, `/api/calibrate`: what more or less of a steering does to an answer."""

from fastapi import APIRouter, Request, Response

from millm.access import requires
from millm.admin.answers import answered
from millm.admin.route import AdminRoute, told
from millm.experiments.bodies import Calibrate, Compare, Sweep
from millm.experiments.calibrating import calibrate, plan
from millm.experiments.comparing import columns, compare, compared
from millm.experiments.sweeping import course, sweep, swept
from millm.experiments.told import Calibration, Comparison, Swept
from millm.openai.disconnect import unless_gone
from millm.openai.streaming import stream
from millm.state import State

router = APIRouter(route_class=AdminRoute, dependencies=[requires("infer")])


@router.post("/compare", responses=answered(Comparison))
async def post_compare(body: Compare, request: Request) -> Response:
    """The same question with one seed: the base model's answer, the steered one, the system prompt's.

    Streamed, all at once: `{"column", "text"}` as it comes, an end of each column with its receipt, then where the
    steered answer first differs.
    """
    state: State = request.app.state.millm
    made = await columns(state, body)
    if body.stream:
        return await stream(request, compare(state, request, made))
    return told(await unless_gone(request, compared(state, request, made)))


@router.post("/sweep", responses=answered(Swept))
async def post_sweep(body: Sweep, request: Request) -> Response:
    """All strengths at several multiples, with several seeds: each answer measured, then the means.

    Streamed, a point at a time; closing the connection ends it.
    """
    state: State = request.app.state.millm
    made = await course(state, body)
    if body.stream:
        return await stream(request, sweep(state, request, made))
    return told(await unless_gone(request, swept(state, request, made)))


@router.post("/calibrate", responses=answered(Calibration))
async def post_calibrate(body: Calibrate, request: Request) -> Response:
    """The largest multiple of all strengths that keeps to a guard. A suggestion: nothing is changed."""
    state: State = request.app.state.millm
    return told(await unless_gone(request, calibrate(state, request, await plan(state, body))))
