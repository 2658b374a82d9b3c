"""`GET /api/hardware`: the processor, the memory, the GPUs and the disk, and why the CPU does the work if it does."""

import asyncio

from fastapi import APIRouter, Request, Response

from millm.access import requires
from millm.admin.answers import struct_response
from millm.admin.route import json_response
from millm.hardware import Hardware, read_hardware
from millm.state import State

hardware_router = APIRouter()


@hardware_router.get("/hardware", dependencies=[requires("monitor")], responses=struct_response(Hardware))
async def get_hardware(request: Request) -> Response:
    """What there is to run a model on."""
    state: State = request.app.state.millm
    return json_response(await asyncio.to_thread(read_hardware, state.settings.home_folder, state.engine.platform))
