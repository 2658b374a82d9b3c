"""`millm load`: load a model of the library into the running server."""

import time
from contextlib import suppress
from functools import partial
from typing import Annotated

import msgspec
import typer

from millm.cli.changing import run_with_progress
from millm.cli.library_remote import POLL_SECONDS
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stderr_console, stdout_console
from millm.cli.remote import RemoteServer, connect
from millm.cli.running import status_table
from millm.cli.wanted import parse_model_options
from millm.errors import Conflict
from millm.status import ServerStatus


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
