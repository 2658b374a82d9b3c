"""What runs, as `millm ps` shows it: a status in, something to print out. Knows no server."""

from rich.console import Group, RenderableType

from millm.cli.columns import plain_text, table
from millm.cli.ids import IdText
from millm.cli.quantities import format_bytes, format_count, format_duration, format_percent
from millm.engine.messages import ModelFacts, SaeFacts
from millm.hardware import CpuFallbackReason
from millm.status import ChangeInProgress, ModelStatus, ServerStatus

_IDLE_MESSAGES = {
    "empty": "no model is loaded; `millm load ID` loads one, `millm list` shows which there are",
    "asleep": "the model left the memory after a while without requests; the next one wakes it",
    "loading": "a model is being loaded",
    "restarting": "the engine ended unexpectedly; its model is being loaded again",
    "safe_mode": "the engine ended too often, so nothing is loaded by itself; `millm load ID` tries again",
    "down": "the engine does not run; start the server again",
}
"""By `ServerStatus.status`, while nothing is loaded."""


def status_table(status: ServerStatus, cpu_reason: CpuFallbackReason | None = None) -> RenderableType:
    """`why_cpu`: where the CPU does the work, and somebody found out why."""
    parts: list[RenderableType] = (
        [_model_table(status.model, status)]
        if status.model
        else [plain_text(_IDLE_MESSAGES.get(status.status, status.status))]
    )
    if status.saes:
        parts += [plain_text(""), _attached_saes_table(status.saes)]
    notes = [*_status_notes(status), *([_cpu_reason_text(cpu_reason)] if cpu_reason and is_on_cpu(status) else [])]
    gap = [""] if notes else []
    return Group(*parts, *(plain_text(note) for note in [*gap, *notes]))


def is_on_cpu(status: ServerStatus) -> bool:
    return status.model is not None and status.model.facts.device == "cpu"


def _cpu_reason_text(reason: CpuFallbackReason) -> str:
    return f"{reason.message} → {reason.fix}" if reason.fix else reason.message


def _model_table(model: ModelStatus, status: ServerStatus) -> RenderableType:
    facts = model.facts
    row = (
        IdText(model.name), format_bytes(facts.memory.process if facts.memory else None), _device_text(facts),
        facts.weights or facts.dtype, _active_profile_name(status), format_count(facts.context_length), _unload_time(model),
    )  # fmt: skip
    return table(("NAME", ">SIZE", "DEVICE", "WEIGHTS", "PROFILE", ">CTX", "UNTIL"), [row])


def _attached_saes_table(saes: tuple[SaeFacts, ...]) -> RenderableType:
    rows = [
        (IdText(sae.sae), format_bytes(sae.memory or None), format_count(sae.features), sae.hook_point) for sae in saes
    ]
    return table(("SAE", ">SIZE", ">FEATURES", "HOOK POINT"), rows)


def _device_text(facts: ModelFacts) -> str:
    """One GPU holds all of it, or accelerate spread it over several devices, or the CPU has it."""
    name, _, place = facts.device.partition(":")
    if name != "cuda":
        return "CPU" if name == "cpu" else facts.device
    return f"100% GPU {place}" if place not in ("", "0") else "100% GPU"


def _active_profile_name(status: ServerStatus) -> str:
    if status.steering is None:
        return "none"
    return status.steering.profile or "(no name)"


def _unload_time(model: ModelStatus) -> str:
    return "for good" if model.unloads_in is None else format_duration(model.unloads_in)


def _status_notes(status: ServerStatus) -> list[str]:
    """What the tables cannot say."""
    told = [f"{_change_text(status.changing)}"] if status.changing else []
    if status.model and status.status not in ("ready", "loading"):
        told.append(status.status)
    if status.degraded:
        told.append(f"! {status.degraded}")
    if status.notice:
        told.append(f"! {status.notice}")
    if status.cause:
        told.append(f"! {status.cause.message}")
    if status.in_flight:
        told.append(f"{status.running} answers run, {status.waiting} wait")
    return told


def _change_text(change: ChangeInProgress) -> str:
    verb = {"load": "loading", "unload": "unloading", "attach": "attaching", "detach": "detaching"}[change.what]
    stage = f": {change.stage}" if change.stage else ""
    part = f", {format_percent(change.done / change.total)}" if change.total else ""
    return f"{verb} {change.name}{stage}{part}"
