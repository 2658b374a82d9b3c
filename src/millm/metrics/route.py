"""`GET /metrics`: what is counted and what is so, in Prometheus' text format."""

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from millm.access import requires
from millm.metrics.gauges import GAUGES, MachineUsage
from millm.state import State

router = APIRouter()


@router.get("/metrics", dependencies=[requires("monitor")], include_in_schema=False)
async def get_metrics(request: Request) -> Response:
    state: State = request.app.state.millm
    machine = await asyncio.to_thread(MachineUsage.measure, state.engine.pid)
    return Response(generate_latest(_ServerRegistry(state, machine)), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _ServerRegistry(CollectorRegistry):
    """What the meter has counted, and what is so now."""

    def __init__(self, state: State, machine: MachineUsage) -> None:
        super().__init__()
        self._state, self._machine = state, machine

    def collect(self) -> Iterator[Metric]:
        for metric in self._state.meter.registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric  # without the time each of them began, which is the server's start
        for gauge in GAUGES:
            yield gauge.family(self._state, self._machine)
