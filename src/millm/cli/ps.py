"""`millm ps`: what runs, where, and until when."""

from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import out, tell_json
from millm.cli.remote import connect
from millm.cli.running import running
from millm.status import ServerStatus


def run(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show what a running server has loaded and attached, on which device, and until when.

    Example:

        millm ps --json

    SIZE is what was measured after the load, not an estimate.
    """
    status = connect(url, api_key).ask("GET", "/api/status", ServerStatus)
    if as_json:
        tell_json(status)
    else:
        out().print(running(status))
