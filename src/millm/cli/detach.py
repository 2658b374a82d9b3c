"""`millm detach`: take an SAE off the model that is loaded."""

from typing import Annotated
from urllib.parse import quote

import typer

from millm.cli.changing import changed
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import out, tell_json
from millm.cli.remote import connect
from millm.cli.running import running
from millm.status import ServerStatus


def run(
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
    status = changed(remote, lambda: remote.ask("DELETE", path, ServerStatus))
    if as_json:
        tell_json(status)
    else:
        out().print(running(status))
