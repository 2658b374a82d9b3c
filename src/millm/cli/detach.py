"""`millm detach`: take an SAE off the model that is loaded."""

from typing import Annotated
from urllib.parse import quote

import typer

from millm.cli.changing import run_with_progress
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.remote import connect
from millm.cli.running import status_table
from millm.status import ServerStatus


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
