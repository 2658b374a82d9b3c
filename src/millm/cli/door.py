"""Which library a command is about: that of a running server, or what is on this disk where no server runs."""

from millm.cli.library_here import LocalLibrary
from millm.cli.library_remote import RemoteLibrary
from millm.cli.remote import connect
from millm.errors import ModelNotFound, NotFound, SaeNotFound
from millm.hub.entries import ModelEntry, SaeEntry
from millm.settings import Settings

LibraryClient = RemoteLibrary | LocalLibrary


def open_library(url: str | None, api_key: str | None) -> LibraryClient:
    """The server at `url` if one is named; else the one at the usual address, if it answers; else this disk."""
    remote = connect(url, api_key)
    return RemoteLibrary(remote) if url or remote.is_running() else LocalLibrary(Settings.load())


def find_entry(library: LibraryClient, id: str) -> ModelEntry | SaeEntry:
    """Raises NotFound when it is neither a model nor an SAE."""
    try:
        return library.model(id)
    except ModelNotFound:
        pass
    try:
        return library.sae(id)
    except SaeNotFound as error:
        raise NotFound(
            f"neither a model nor an SAE {id!r} is in the library; `millm list` and `millm list --saes` show what is"
        ) from error
