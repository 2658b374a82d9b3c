"""`millm unload`: let the running server's memory go."""

from millm.cli.changing import changed
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import out, tell_json
from millm.cli.remote import connect
from millm.cli.running import running
from millm.status import ServerStatus


def run(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Unload the running server's model and its SAEs; the server stays up.

    Example:

        millm unload

    Answers that run may end first, for MILLM_DRAIN_TIMEOUT seconds.
    """
    remote = connect(url, api_key)
    status = changed(remote, lambda: remote.ask("POST", "/api/models/unload", ServerStatus, {}))
    if as_json:
        tell_json(status)
    else:
        out().print(running(status))
