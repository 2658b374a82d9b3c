"""`millm ps`: what runs, where, and until when."""

from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import out, tell_json
from millm.cli.remote import connect
from millm.cli.running import is_on_cpu, running
from millm.hardware import Hardware
from millm.status import ServerStatus


def run(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show what a running server has loaded and attached, on which device, and until when.

    Example:

        millm ps --json

    SIZE is what was measured after the load, not an estimate.
    """
    remote = connect(url, api_key)
    status = remote.ask("GET", "/api/status", ServerStatus)
    if as_json:
        tell_json(status)
    else:
        reason = remote.ask("GET", "/api/hardware", Hardware).reason if is_on_cpu(status) else None
        out().print(running(status, reason))
