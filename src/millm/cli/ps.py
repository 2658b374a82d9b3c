"""`millm ps`: what runs, where, and until when."""

from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.remote import connect
from millm.cli.running import is_on_cpu, status_table
from millm.hardware import Hardware
from millm.status import ServerStatus


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
