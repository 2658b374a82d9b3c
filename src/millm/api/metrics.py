"""`GET /metrics` in Prometheus' text format: the counters of `monitoring.metrics`, and gauges read on request."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil  # type: ignore[import-untyped]
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from millm import __version__
from millm.api.dependencies import requires
from millm.hardware import Gpu, read_driver
from millm.state import State

STATUSES = ("empty", "asleep", "loading", "ready", "draining", "restarting", "safe_mode", "down")


@dataclass(frozen=True)
class MachineUsage:
    """Memory of processes and GPUs."""

    resident_bytes: dict[str, int]
    """By process name."""
    gpus: tuple[Gpu, ...]

    @classmethod
    def measure(cls, engine_pid: int | None) -> "MachineUsage":
        """About 1 ms, with a GPU several dozen."""
        processes = {"server": psutil.Process().pid, "engine": engine_pid}
        sizes = {name: _resident_bytes(pid) for name, pid in processes.items() if pid is not None}
        driver = read_driver()
        return cls({name: size for name, size in sizes.items() if size}, driver.gpus if driver else ())


GaugeValues = Iterable[tuple[tuple[str, ...], float]]
"""(labels, value) of each series."""


@dataclass(frozen=True)
class Gauge:
    name: str
    help: str
    read: Callable[[State, MachineUsage], GaugeValues]
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"

    def family(self, state: State, machine: MachineUsage) -> Metric:
        family = (GaugeMetricFamily if self.kind == "gauge" else CounterMetricFamily)(
            self.name, self.help, labels=self.labels
        )
        for labels, value in self.read(state, machine):
            family.add_metric(labels, value)
        return family


def _scalar(
    name: str, help: str, value: Callable[[State], float], kind: Literal["gauge", "counter"] = "gauge"
) -> Gauge:
    """A gauge without labels."""
    return Gauge(name, help, lambda state, _machine: [((), value(state))], (), kind)


def _model_info(state: State, _machine: MachineUsage) -> GaugeValues:
    if state.model is None:
        return []
    facts = state.model.facts
    return [((state.model.name, facts.architecture, facts.device, facts.weights, facts.runner), 1)]


def _model_memory(state: State, _machine: MachineUsage) -> GaugeValues:
    if state.model is None or state.asleep:
        return []
    memory, saes = state.model.facts.memory, sum(attached.facts.memory or 0 for attached in state.saes.values())
    measured = [(("weights",), memory.weights), (("kv_cache",), memory.kv_cache)] if memory else []
    return [*measured, (("saes",), saes)]


def _gpu_memory(_state: State, machine: MachineUsage) -> Iterator[tuple[tuple[str, ...], float]]:
    for gpu in machine.gpus:
        for kind, size in (("total", gpu.total), ("used", gpu.used), ("ours", gpu.ours)):
            if size is not None:
                yield (str(gpu.number), kind), size


GAUGES = (
    Gauge("millm_build_info", "1, labelled with the version.", lambda *_: [((__version__,), 1)], ("version",)),
    Gauge(
        "millm_status",
        "1 for the current status, 0 for the others; as in `GET /api/status`.",
        lambda state, _: [((status,), status == state.status) for status in STATUSES],
        ("status",),
    ),
    _scalar("millm_degraded", "1 while the server is degraded.", lambda state: bool(state.engine.degraded_reason)),
    _scalar("millm_requests_open", "Requests in progress.", lambda state: state.drain_gate.active_requests),
    _scalar("millm_sequences_running", "Sequences in the running batch.", lambda state: state.engine.running),
    _scalar(
        "millm_sequences_waiting",
        "Sequences in the queue.",
        lambda state: state.engine.in_flight - state.engine.running,
    ),
    _scalar(
        "millm_queue_limit",
        "Limit of the queue; one more sequence is `queue_full`.",
        lambda state: state.settings.max_queue,
    ),
    Gauge(
        "millm_model_info",
        "1, labelled with the model, which may be unloaded while idle; no series without a model.",
        _model_info,
        ("model", "architecture", "device", "weights", "runner"),
    ),
    _scalar("millm_saes_attached", "Attached SAEs.", lambda state: len(state.saes)),
    _scalar(
        "millm_steering_active",
        "1 while a steering is active.",
        lambda state: bool(state.active and state.active.steering),
    ),
    Gauge(
        "millm_resident_memory_bytes",
        "Resident memory of each process.",
        lambda _, machine: [((name,), size) for name, size in machine.resident_bytes.items()],
        ("process",),
    ),
    Gauge("millm_model_memory_bytes", "Device memory of the model, measured when loaded.", _model_memory, ("part",)),
    Gauge("millm_gpu_memory_bytes", "Memory of each GPU, reported by its driver.", _gpu_memory, ("gpu", "kind")),
    _scalar("millm_event_listeners", "Websockets subscribed to events.", lambda state: len(state.events)),
    _scalar("millm_engine_restarts", "Restarts after engine crashes.", lambda state: state.engine.restarts, "counter"),
)


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0  # the process has ended


router = APIRouter()


@router.get("/metrics", dependencies=[requires("monitor")], include_in_schema=False)
async def get_metrics(request: Request) -> Response:
    state: State = request.app.state.millm
    machine = await asyncio.to_thread(MachineUsage.measure, state.engine.pid)
    return Response(generate_latest(_ServerRegistry(state, machine)), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _ServerRegistry(CollectorRegistry):
    """The meter's counters and the gauges."""

    def __init__(self, state: State, machine: MachineUsage) -> None:
        super().__init__()
        self._state, self._machine = state, machine

    def collect(self) -> Iterator[Metric]:
        for metric in self._state.meter.registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric  # without creation times, which equal the server's start
        for gauge in GAUGES:
            yield gauge.family(self._state, self._machine)
