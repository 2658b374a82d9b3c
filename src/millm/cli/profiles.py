"""`millm profiles`: the saved steerings of the running server; without one, those on this disk.

The profiles on this disk, without a server: the same questions as `profiles_remote.py` asks one over HTTP.

What writes holds the home, so that no server starts meanwhile. Only miLLM's own files are understood here.

The profiles of a running server, over HTTP: the same questions as `profiles_here.py` answers from the disk.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args
from urllib.parse import quote, urlencode

import msgspec
import typer

from millm.cli.http_client import RemoteServer, connect
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.profile_tables import (
    ImportAction,
    ImportRow,
    OnConflict,
    SourceDocument,
    diff_steerings,
    difference_table,
    import_table,
    profile_details,
    profiles_table,
    read_document,
)
from millm.cli.terminal import print_json, stderr_console, stdout_console
from millm.database import Database
from millm.errors import CannotStart, InvalidImport
from millm.hub.home import Home
from millm.profiles.schema import Profile, SteeringRequest, name_key
from millm.profiles.store import (
    ProfileDetail,
    ProfileEntry,
    ProfilePage,
    ProfileStore,
    parse_profile,
    profile_entry,
    read_profile,
)
from millm.settings import Settings
from millm.status import ServerStatus, SteeringState

NO_SERVER_REASON = "no server runs"
_NO_LIMIT = 10**9


class LocalProfiles:
    def __init__(self, settings: Settings) -> None:
        self._home = Home(settings.home_folder)
        self._home.create()
        self._store = ProfileStore(Database(self._home.database))

    def entries(self, search: str) -> Sequence[ProfileEntry]:
        found, _ = self._store.page(search=search, limit=_NO_LIMIT)
        return [
            profile_entry(stored, is_active=False, incompatibility=NO_SERVER_REASON, model=None) for stored in found
        ]

    def profile(self, name: str) -> Profile:
        return self._store.find(name)

    def export(self, name: str, format: str, skip: str | None) -> bytes:
        if format != "millm" or skip:
            raise CannotStart("--format and --skip need a running server; start one, or leave them out")
        return self._store.find(name).model_dump_json(indent=2, exclude_none=True).encode() + b"\n"

    def preview_import(self, document: SourceDocument, saes: Sequence[str]) -> Sequence[ImportRow]:
        profile = self._parse_document(document, saes)
        taken = name_key(profile.name) in {name_key(one.name) for one in self._store.all()}
        return [ImportRow(path="$", name=profile.name, notes=("the name is taken",) if taken else ())]

    def import_document(
        self, document: SourceDocument, saes: Sequence[str], on_conflict: OnConflict, name: str | None
    ) -> Sequence[ImportRow]:
        profile = self._parse_document(document, saes)
        if name is not None:
            profile = Profile.model_validate({**profile.model_dump(), "name": name})
        with self._home.lock():
            return [self._store_profile(profile, on_conflict)]

    def _parse_document(self, document: SourceDocument, saes: Sequence[str]) -> Profile:
        if saes or not document.content.lstrip().startswith(b"{"):
            raise InvalidImport(
                f"{document.name}: only miLLM's own profiles can be imported without a server; start one, and try again"
            )
        return parse_profile(document.content, document.name)

    def _store_profile(self, profile: Profile, on_conflict: OnConflict) -> ImportRow:
        is_taken = name_key(profile.name) in {name_key(one.name) for one in self._store.all()}
        did: ImportAction = "added"
        if is_taken and on_conflict == "skip":
            did = "skipped"
        elif is_taken and on_conflict == "replace":
            did, _ = "replaced", self._store.replace(profile.name, profile)
        elif is_taken and on_conflict == "rename":
            profile = profile.model_copy(update={"name": self._store.free_name(profile.name)})
            self._store.add(profile)
        else:
            self._store.add(profile)
        return ImportRow(path="$", name=profile.name, did=did)


_PAGE_SIZE = 1000


class _ImportRows(msgspec.Struct, frozen=True):
    entries: tuple[ImportRow, ...]


class RemoteProfiles:
    def __init__(self, remote: RemoteServer) -> None:
        self._remote = remote

    def entries(self, search: str) -> Sequence[ProfileEntry]:
        found: list[ProfileEntry] = []
        while True:
            query = urlencode({"search": search, "limit": _PAGE_SIZE, "offset": len(found)})
            page = self._remote.request("GET", f"/api/profiles?{query}", ProfilePage)
            found += page.profiles
            if not page.profiles or len(found) >= page.total:
                return found

    def profile(self, name: str) -> Profile:
        return Profile.model_validate(self._remote.request("GET", _profile_path(name), ProfileDetail).profile)

    def active(self) -> SteeringRequest:
        """What steers the server; nothing is a steering without features."""
        return SteeringRequest.model_validate(
            self._remote.request("GET", "/api/steering", SteeringState).steering or {}
        )

    def use(self, name: str) -> ProfileEntry:
        return self._remote.request("POST", f"{_profile_path(name)}/activate", ProfileEntry)

    def off(self) -> ServerStatus:
        return self._remote.request("POST", "/api/profiles/deactivate", ServerStatus)

    def export(self, name: str, format: str, skip: str | None) -> bytes:
        wanted = {"format": format, **({"skip": skip} if skip else {})}
        return self._remote.get_file(f"{_profile_path(name)}/export?{urlencode(wanted)}")

    def preview_import(self, document: SourceDocument, saes: Sequence[str]) -> Sequence[ImportRow]:
        query = urlencode([("sae", sae) for sae in saes])
        return self._remote.post_document(
            f"/api/profiles/import/preview?{query}", document.content, _ImportRows
        ).entries

    def import_document(
        self, document: SourceDocument, saes: Sequence[str], on_conflict: OnConflict, name: str | None
    ) -> Sequence[ImportRow]:
        said = [("on_conflict", on_conflict), *(("sae", sae) for sae in saes), *([("as", name)] if name else [])]
        return self._remote.post_document(
            f"/api/profiles/import?{urlencode(said)}", document.content, _ImportRows
        ).entries


def _profile_path(name: str) -> str:
    return f"/api/profiles/{quote(name, safe='')}"


group = typer.Typer(
    help="""List, choose, compare, import and export profiles: saved steerings.

    Example:

        millm profiles use yelling

    Asks the running server; without one, `list`, `show`, `diff`, `export` and `import` look at this disk.
    """,
    no_args_is_help=True,
    rich_markup_mode="rich",
)
ProfileNameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="As `millm profiles list` shows it.", show_default=False)
]
ProfilesClient = RemoteProfiles | LocalProfiles


@group.command("list")
def list_profiles(
    search: Annotated[str, typer.Option(help="Only those with this in the name, the description or a tag.")] = "",
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List the profiles, and which of them fit what is loaded.

    Example:

        millm profiles list --search french
    """
    entries = _open_profiles(url, api_key).entries(search)
    print_json(entries) if as_json else stdout_console().print(profiles_table(entries))


@group.command()
def show(name: ProfileNameArgument, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show everything that a profile says.

    Example:

        millm profiles show yelling
    """
    profile = _open_profiles(url, api_key).profile(name)
    print_json(profile.model_dump(mode="json", exclude_none=True)) if as_json else stdout_console().print(
        profile_details(profile)
    )


@group.command()
def use(name: ProfileNameArgument, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Steer every request that does not say otherwise with a profile, from the next token on.

    Example:

        millm profiles use yelling
    """
    entry = RemoteProfiles(connect(url, api_key)).use(name)
    if as_json:
        print_json(entry)
    else:
        stdout_console().print(
            f"{entry.name} steers the server; `millm profiles off` ends that", markup=False, soft_wrap=True
        )


@group.command()
def off(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Steer with nothing: the base model answers, unless a request says otherwise.

    Example:

        millm profiles off
    """
    status = RemoteProfiles(connect(url, api_key)).off()
    print_json(status) if as_json else stdout_console().print("nothing steers the server", markup=False)


@group.command("import")
def import_profiles(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Files, `-` for stdin, or Neuronpedia addresses.")
    ],
    preview: Annotated[bool, typer.Option("--preview", help="Only show what each would become.")] = False,
    on_conflict: Annotated[
        str, typer.Option("--on-conflict", help="Where the name is taken: refuse, rename, replace or skip.")
    ] = "refuse",
    sae: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=SAE", help="Which SAE of ours a foreign id means. Repeatable.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option("--as", help="Another name, for a single profile.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Import profiles: miLLM's own, miStudio's, Neuronpedia's, lm-eval's, Goodfire's or GGUF control vectors.

    Example:

        millm profiles import experiment.json --preview

    Without a server only miLLM's own files.
    """
    if on_conflict not in get_args(OnConflict):
        raise CannotStart(f"--on-conflict {on_conflict}: give {', '.join(get_args(OnConflict))}")
    profiles, saes = _open_profiles(url, api_key), sae or []
    wanted = msgspec.convert(on_conflict, OnConflict)
    outcomes: list[ImportRow] = []
    for document in [read_document(source) for source in sources]:
        outcomes += (
            profiles.preview_import(document, saes)
            if preview
            else profiles.import_document(document, saes, wanted, name)
        )
    print_json(outcomes) if as_json else stdout_console().print(import_table(outcomes))


@group.command()
def export(
    name: ProfileNameArgument,
    format: Annotated[
        str, typer.Option("--format", help="millm, adr, mistudio, neuronpedia, lm-eval or gguf.")
    ] = "millm",
    output: Annotated[Path, typer.Option("--output", "-o", help="A file; `-` is stdout.")] = Path("-"),
    skip: Annotated[
        str | None,
        typer.Option(help="default, none or special: export as if it said so, for tools that cannot say it."),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Write a profile as a file, for another miLLM or another tool.

    Example:

        millm profiles export yelling --format gguf -o yelling.gguf
    """
    document = _open_profiles(url, api_key).export(name, format, skip)
    if output == Path("-"):
        sys.stdout.buffer.write(document)
        return
    try:
        output.write_bytes(document)
    except OSError as error:
        raise CannotStart(f"{output} cannot be written ({error.strerror})") from error
    stderr_console().print(f"{output}: {len(document):,} bytes", markup=False, soft_wrap=True)


@group.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A profile, or a .json file.", show_default=False)],
    after: Annotated[str | None, typer.Argument(metavar="B", help="Another one.", show_default=False)] = None,
    active: Annotated[bool, typer.Option("--active", help="Instead of B, what steers the server now.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Compare two profiles feature by feature.

    Example:

        millm profiles diff yelling --active
    """
    if (after is None) != active:
        raise CannotStart("give two profiles, or one and --active")
    profiles = _open_profiles(url, api_key)
    found = diff_steerings(
        _load_steering(profiles, before), _load_steering(profiles, after) if after else _active_steering(profiles)
    )
    if as_json:
        print_json([one._asdict() for one in found])
    else:
        stdout_console().print(difference_table(found, before, after or "active"))


def _open_profiles(url: str | None, api_key: str | None) -> ProfilesClient:
    """The server at `url` if one is named; else the one at the usual address, if it answers; else this disk."""
    remote = connect(url, api_key)
    return RemoteProfiles(remote) if url or remote.is_running() else LocalProfiles(Settings.load())


def _load_steering(profiles: ProfilesClient, source: str) -> SteeringRequest:
    return read_profile(Path(source)) if source.endswith(".json") else profiles.profile(source)


def _active_steering(profiles: ProfilesClient) -> SteeringRequest:
    if isinstance(profiles, LocalProfiles):
        raise CannotStart("--active needs a running server; start one, or say where it is with --url")
    return profiles.active()
