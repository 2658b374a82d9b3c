"""The commands that show and change what a running server has loaded: `ps`, `load`, `unload`, `attach`, `detach`."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from typing import Annotated, TypeVar
from urllib.parse import quote

import msgspec
import typer
from rich.console import Group, RenderableType

from millm.cli.http_client import POLL_SECONDS, RemoteServer, connect
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
    print_line,
    print_result,
    progress_bars,
    stderr_console,
    table,
)
from millm.engine.messages import ModelFacts, SaeFacts
from millm.errors import Conflict
from millm.hardware import CpuFallbackReason, Hardware
from millm.status import ChangeInProgress, ModelStatus, SaeSpec, ServerStatus

T = TypeVar("T")


def show_status(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show what a running server has loaded and attached, on which device, and until when.

    Example:

        millm ps --json

    SIZE is what was measured after the load, not an estimate.
    """
    remote = connect(url, api_key)
    status = _read_status(remote)
    is_explained = is_on_cpu(status) and not as_json
    reason = remote.request("GET", "/api/hardware", Hardware).reason if is_explained else None
    print_result(status, lambda status: status_table(status, reason), as_json=as_json)


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

    Options that are left out have the server's values. If it fails, the old model stays. Ctrl+C gives it up.
    """
    remote = connect(url, api_key)
    spec = parse_model_options(
        id, quantization=quantization, dtype=dtype, device=device, attention=attention, context=context, slots=slots
    )
    try:
        status = _change_status(remote, "POST", "/api/models/load", {**msgspec.to_builtins(spec), "force": force})
    except KeyboardInterrupt:
        _cancel_load(remote, id)
        raise
    print_result(status, status_table, as_json=as_json)


def _cancel_load(remote: RemoteServer, id: str) -> None:
    """Print the outcome: the load may have completed before the cancellation. A second Ctrl+C skips the wait."""
    with suppress(Conflict):  # no load is in progress any more
        remote.request("POST", "/api/models/cancel", ServerStatus, {})
    while (status := _read_status(remote)).changing:
        time.sleep(POLL_SECONDS)
    is_loaded = status.model is not None and status.model.name == id
    outcome = f"{id} was loaded before it could be given up" if is_loaded else f"loading {id} is given up"
    print_line(stderr_console(), f"{outcome}; `millm ps` shows what is loaded")


def unload_model(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Unload the running server's model and its SAEs; the server stays up.

    Example:

        millm unload

    Answers that run may end first, for MILLM_DRAIN_TIMEOUT seconds.
    """
    status = _change_status(connect(url, api_key), "POST", "/api/models/unload", {})
    print_result(status, status_table, as_json=as_json)


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

    Running answers continue. If the SAE does not fit the model, nothing changes.
    """
    remote = connect(url, api_key)
    spec = SaeSpec(
        id=sae, hook_point=hook_point, layer=layer, allow_model_mismatch=allow_model_mismatch, replaces=replace
    )
    body = msgspec.to_builtins(spec)
    facts = run_with_progress(remote, lambda: remote.request("POST", "/api/attachments", SaeFacts, body))
    model = None if as_json else _read_status(remote).model
    name = model.name if model else "the model"
    print_result(facts, lambda facts: attached_sae_details(facts, name), as_json=as_json)


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
    status = _change_status(connect(url, api_key), "DELETE", f"/api/attachments/{quote(sae, safe='/@')}")
    print_result(status, status_table, as_json=as_json)


def _read_status(remote: RemoteServer) -> ServerStatus:
    return remote.request("GET", "/api/status", ServerStatus)


def _change_status(remote: RemoteServer, method: str, path: str, body: object = None) -> ServerStatus:
    return run_with_progress(remote, lambda: remote.request(method, path, ServerStatus, body))


def run_with_progress(remote: RemoteServer, change: Callable[[], T]) -> T:
    """Run a request that changes the server, with progress bars of its stages. Raises what `change` raises."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(change())
        except Exception as error:  # noqa: BLE001  the thread's edge: `future.result` raises it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # a daemon, so that Ctrl+C need not wait for the result
    with ExitStack() as stack:
        report: ProgressReporter | None = None
        while not wait([future], POLL_SECONDS).done:
            changing = _read_status(remote).changing
            if changing and changing.stage:
                report = report or stack.enter_context(progress_bars(stderr_console(), persists=False))
                report(changing.stage, changing.done, changing.total or 1)
    return future.result()


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
    """`cpu_reason`: why the model runs on the CPU, if that is known."""
    parts: list[RenderableType] = [
        _model_table(status.model, status) if status.model else _IDLE_MESSAGES.get(status.status, status.status)
    ]
    if status.saes:
        parts += ["", _attached_saes_table(status.saes)]
    notes = _status_notes(status)
    if cpu_reason and is_on_cpu(status):
        notes.append(f"{cpu_reason.message} → {cpu_reason.fix}" if cpu_reason.fix else cpu_reason.message)
    return Group(*map(plain_text, [*parts, *([""] if notes else []), *notes]))


def is_on_cpu(status: ServerStatus) -> bool:
    return status.model is not None and status.model.facts.device == "cpu"


def _model_table(model: ModelStatus, status: ServerStatus) -> RenderableType:
    facts = model.facts
    profile = "none" if status.steering is None else status.steering.profile or "(no name)"
    until = "for good" if model.unloads_in is None else format_duration(model.unloads_in)
    row = (
        IdText(model.name), format_bytes(facts.memory.process if facts.memory else None), _device_text(facts),
        facts.weights or facts.dtype, profile, format_count(facts.context_length), until,
    )  # fmt: skip
    return table(("NAME", ">SIZE", "DEVICE", "WEIGHTS", "PROFILE", ">CTX", "UNTIL"), [row])


def _attached_saes_table(saes: tuple[SaeFacts, ...]) -> RenderableType:
    rows = [
        (IdText(sae.sae), format_bytes(sae.memory or None), format_count(sae.features), sae.hook_point) for sae in saes
    ]
    return table(("SAE", ">SIZE", ">FEATURES", "HOOK POINT"), rows)


def _device_text(facts: ModelFacts) -> str:
    """`CPU`, `100% GPU`, `100% GPU 1`, or the devices over which accelerate spread the model."""
    name, _, number = facts.device.partition(":")
    if name != "cuda":
        return "CPU" if name == "cpu" else facts.device
    return f"100% GPU {number}" if number not in ("", "0") else "100% GPU"


def _status_notes(status: ServerStatus) -> list[str]:
    """The facts that have no column."""
    notes = [_change_text(status.changing)] if status.changing else []
    if status.model and status.status not in ("ready", "loading"):
        notes.append(status.status)
    cause = status.cause.message if status.cause else None
    notes += [f"! {problem}" for problem in (status.degraded, status.notice, cause) if problem]
    if status.in_flight:
        notes.append(f"{status.running} requests running, {status.waiting} queued")
    return notes


def _change_text(change: ChangeInProgress) -> str:
    verb = {"load": "loading", "unload": "unloading", "attach": "attaching", "detach": "detaching"}[change.what]
    stage = f": {change.stage}" if change.stage else ""
    share = f", {format_percent(change.done / change.total)}" if change.total else ""
    return f"{verb} {change.name}{stage}{share}"
