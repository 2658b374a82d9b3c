"""What runs, as `millm ps` shows it: a status in, something to print out. Knows no server."""

from rich.console import Group, RenderableType

from millm.cli.columns import plain, table
from millm.cli.ids import Id
from millm.cli.quantities import duration, number, share, size
from millm.engine.messages import ModelFacts, SaeFacts
from millm.status import Changing, ModelStatus, ServerStatus
from millm.why_cpu import Reason

_IDLE = {
    "empty": "no model is loaded; `millm load ID` loads one, `millm list` shows which there are",
    "asleep": "the model left the memory after a while without requests; the next one wakes it",
    "loading": "a model is being loaded",
    "restarting": "the engine ended unexpectedly; its model is being loaded again",
    "safe_mode": "the engine ended too often, so nothing is loaded by itself; `millm load ID` tries again",
    "down": "the engine does not run; start the server again",
}
"""By `ServerStatus.status`, while nothing is loaded."""


def running(status: ServerStatus, why_cpu: Reason | None = None) -> RenderableType:
    """`why_cpu`: where the CPU does the work, and somebody found out why."""
    parts: list[RenderableType] = (
        [_model(status.model, status)] if status.model else [plain(_IDLE.get(status.status, status.status))]
    )
    if status.saes:
        parts += [plain(""), _saes(status.saes)]
    notes = [*_notes(status), *([_why(why_cpu)] if why_cpu and is_on_cpu(status) else [])]
    gap = [""] if notes else []
    return Group(*parts, *(plain(note) for note in [*gap, *notes]))


def is_on_cpu(status: ServerStatus) -> bool:
    return status.model is not None and status.model.facts.device == "cpu"


def _why(reason: Reason) -> str:
    return f"{reason.message} → {reason.fix}" if reason.fix else reason.message


def _model(model: ModelStatus, status: ServerStatus) -> RenderableType:
    facts = model.facts
    row = (
        Id(model.name), size(facts.memory.process if facts.memory else None), _device(facts),
        facts.weights or facts.dtype, _profile(status), number(facts.context_length), _until(model),
    )  # fmt: skip
    return table(("NAME", ">SIZE", "DEVICE", "WEIGHTS", "PROFILE", ">CTX", "UNTIL"), [row])


def _saes(saes: tuple[SaeFacts, ...]) -> RenderableType:
    rows = [(Id(sae.sae), size(sae.memory or None), number(sae.features), sae.hook_point) for sae in saes]
    return table(("SAE", ">SIZE", ">FEATURES", "HOOK POINT"), rows)


def _device(facts: ModelFacts) -> str:
    """One GPU holds all of it, or accelerate spread it over several devices, or the CPU has it."""
    name, _, place = facts.device.partition(":")
    if name != "cuda":
        return "CPU" if name == "cpu" else facts.device
    return f"100% GPU {place}" if place not in ("", "0") else "100% GPU"


def _profile(status: ServerStatus) -> str:
    if status.steering is None:
        return "none"
    return status.steering.profile or "(no name)"


def _until(model: ModelStatus) -> str:
    return "for good" if model.unloads_in is None else duration(model.unloads_in)


def _notes(status: ServerStatus) -> list[str]:
    """What the tables cannot say."""
    told = [f"{_changing(status.changing)}"] if status.changing else []
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


def _changing(changing: Changing) -> str:
    verb = {"load": "loading", "unload": "unloading", "attach": "attaching", "detach": "detaching"}[changing.what]
    stage = f": {changing.stage}" if changing.stage else ""
    part = f", {share(changing.done / changing.total)}" if changing.total else ""
    return f"{verb} {changing.name}{stage}{part}"
