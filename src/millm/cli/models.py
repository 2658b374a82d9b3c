"""What runs, as `millm ps` shows it: a status in, something to print out. Knows no server.

A change that a server takes its time for, with the stages it reports meanwhile.

`millm attach`: attach an SAE of the library to the model that is loaded.

`millm detach`: take an SAE off the model that is loaded.

`millm load`: load a model of the library into the running server.

`millm ps`: what runs, where, and until when.

`millm unload`: let the running server's memory go.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Annotated, Generic, TypeVar
from urllib.parse import quote

import msgspec
import typer
from rich.console import Group, RenderableType

from millm.cli.http_client import RemoteServer, connect
from millm.cli.library_client import POLL_SECONDS
from millm.cli.library_tables import attached_sae_details
from millm.cli.options import ApiKey, AsJson, Url, parse_model_options
from millm.cli.terminal import (
    IdText,
    ProgressReporter,
    format_bytes,
    format_count,
    format_duration,
    format_percent,
    plain_text,
    print_json,
    progress_bars,
    stderr_console,
    stdout_console,
    table,
)
from millm.engine.messages import ModelFacts, SaeFacts
from millm.errors import Conflict, MillmError
from millm.hardware import CpuFallbackReason, Hardware
from millm.status import ChangeInProgress, ModelStatus, SaeSpec, ServerStatus

T = TypeVar("T")


def run_with_progress(remote: RemoteServer, change: Callable[[], T]) -> T:
    """What `change` returns, or raises; its progress is shown until then."""
    asked = _BackgroundCall(change)
    with ExitStack() as shown:
        report: ProgressReporter | None = None
        while not asked.finished.wait(POLL_SECONDS):
            changing = remote.request("GET", "/api/status", ServerStatus).changing
            if changing and changing.stage:
                report = report or shown.enter_context(progress_bars(stderr_console(), persists=False))
                report(changing.stage, changing.done, changing.total or 1)
    return asked.result()


class _BackgroundCall(Generic[T]):
    """A question in a thread of its own, a daemon, so that Ctrl+C need not wait for the answer."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.finished = threading.Event()
        self._function = function
        self._results: list[T] = []
        self._error: MillmError | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def result(self) -> T:
        if self._error:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._function())
        except MillmError as error:
            self._error = error
        finally:
            self.finished.set()


def attach_sae(
    sae: Annotated[str, typer.Argument(metavar="SAE", help="As `millm list --saes` shows it.", show_default=False)],
    hook_point: Annotated[
        str | None,
        typer.Option("--hook-point", help="Where it belongs, if its files do not say: blocks.12.hook_resid_post."),
    ] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Only the layer, if its files say the rest.")] = None,
    allow_model_mismatch: Annotated[
        bool, typer.Option("--allow-model-mismatch", help="Although it was trained on another model of this width.")
    ] = False,
    replace: Annotated[
        str | None, typer.Option(metavar="SAE", help="In the place of this one, in one step.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Attach an SAE to the model that is loaded, and show what was measured.

    Example:

        millm attach google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71

    Answers that run go on. If it does not fit the model, nothing changes.
    """
    remote = connect(url, api_key)
    wanted = msgspec.to_builtins(
        SaeSpec(id=sae, hook_point=hook_point, layer=layer, allow_model_mismatch=allow_model_mismatch, replaces=replace)
    )
    facts = run_with_progress(remote, lambda: remote.request("POST", "/api/attachments", SaeFacts, wanted))
    if as_json:
        print_json(facts)
    else:
        model = remote.request("GET", "/api/status", ServerStatus).model
        stdout_console().print(attached_sae_details(facts, model.name if model else "the model"))


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


def detach_sae(
    sae: Annotated[str, typer.Argument(metavar="SAE", help="As `millm ps` shows it.", show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Take an SAE off the model; it stays in the library.

    Example:

        millm detach google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71
    """
    remote = connect(url, api_key)
    path = f"/api/attachments/{quote(sae, safe='/@')}"
    status = run_with_progress(remote, lambda: remote.request("DELETE", path, ServerStatus))
    if as_json:
        print_json(status)
    else:
        stdout_console().print(status_table(status))


def load_model(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `millm list` shows it.", show_default=False)],
    quantization: Annotated[str | None, typer.Option(help="none, 8bit or 4bit.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    attention: Annotated[str | None, typer.Option(help="auto, eager, sdpa or flash_attention_2.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Longest sequence, in tokens.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, max=256, help="Sequences that run at once.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Although the estimate says that it does not fit.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Load a model into the running server, in place of the one it has.

    Example:

        millm load google/gemma-2-2b --quantization 4bit

    What is not said is as the server's settings have it. If it fails, the old model stays. Ctrl+C gives it up.
    """
    remote = connect(url, api_key)
    wanted = parse_model_options(
        id, quantization=quantization, dtype=dtype, device=device, attention=attention, context=context, slots=slots
    )
    body = {**msgspec.to_builtins(wanted), "force": force}
    try:
        status = run_with_progress(remote, partial(remote.request, "POST", "/api/models/load", ServerStatus, body))
    except KeyboardInterrupt:
        _cancel_load(remote, id)
        raise
    if as_json:
        print_json(status)
    else:
        stdout_console().print(status_table(status))


def _cancel_load(remote: RemoteServer, id: str) -> None:
    """Tells how it ended: it may have been loaded in this very moment. A second Ctrl+C does not wait for that."""
    with suppress(Conflict):  # nothing is being loaded any more
        remote.request("POST", "/api/models/cancel", ServerStatus, {})
    while (status := remote.request("GET", "/api/status", ServerStatus)).changing:
        time.sleep(POLL_SECONDS)
    is_loaded = status.model is not None and status.model.name == id
    told = f"{id} was loaded before it could be given up" if is_loaded else f"loading {id} is given up"
    stderr_console().print(f"{told}; `millm ps` shows what is loaded", markup=False, soft_wrap=True)


def show_status(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show what a running server has loaded and attached, on which device, and until when.

    Example:

        millm ps --json

    SIZE is what was measured after the load, not an estimate.
    """
    remote = connect(url, api_key)
    status = remote.request("GET", "/api/status", ServerStatus)
    if as_json:
        print_json(status)
    else:
        reason = remote.request("GET", "/api/hardware", Hardware).reason if is_on_cpu(status) else None
        stdout_console().print(status_table(status, reason))


def unload_model(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Unload the running server's model and its SAEs; the server stays up.

    Example:

        millm unload

    Answers that run may end first, for MILLM_DRAIN_TIMEOUT seconds.
    """
    remote = connect(url, api_key)
    status = run_with_progress(remote, lambda: remote.request("POST", "/api/models/unload", ServerStatus, {}))
    if as_json:
        print_json(status)
    else:
        stdout_console().print(status_table(status))
