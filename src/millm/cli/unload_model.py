"""`millm unload`: let the running server's memory go."""

from millm.cli.changing import run_with_progress
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.remote import connect
from millm.cli.running import status_table
from millm.status import ServerStatus


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
