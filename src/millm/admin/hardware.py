"""`GET /api/hardware`: the processor, the memory, the GPUs and the disk, and why the CPU does the work if it does."""

import asyncio

from fastapi import APIRouter, Request, Response

from millm.access import requires
from millm.admin.answers import answered
from millm.admin.route import told
from millm.hardware import Hardware, hardware
from millm.state import State

router = APIRouter()


@router.get("/hardware", dependencies=[requires("monitor")], responses=answered(Hardware))
async def get_hardware(request: Request) -> Response:
    """What there is to run a model on."""
    state: State = request.app.state.millm
    return told(await asyncio.to_thread(hardware, state.settings.home_folder, state.engine.platform))
