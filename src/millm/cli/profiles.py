"""`millm profiles`: saved steerings of the running server, or of this disk where no server runs.

Offline commands read the store directly: `library_client.py` says why not through the API.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import quote, urlencode

import msgspec
import typer

from millm.cli import profile_tables as tables
from millm.cli.http_client import RemoteServer, connect, connect_if_running
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.profile_tables import ImportAction, ImportRow
from millm.cli.terminal import print_json, print_line, print_result, stderr_console, stdout_console
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

OnConflict = Literal["refuse", "rename", "replace", "skip"]
NO_SERVER_REASON = "no server runs"
_NO_LIMIT = 10**9
_PAGE_SIZE = 1000


class SourceDocument(msgspec.Struct, frozen=True):
    name: str
    content: bytes


def read_document(source: str) -> SourceDocument:
    """A file, `-` for stdin, or an address, which is its own content: the server fetches it. Raises CannotStart."""
    if source == "-":
        return SourceDocument("stdin", sys.stdin.buffer.read())
    if source.startswith(("http://", "https://")):
        return SourceDocument(source, source.encode())
    try:
        return SourceDocument(Path(source).name, Path(source).read_bytes())
    except OSError as error:
        raise CannotStart(f"{source} cannot be read ({error.strerror})") from error


class LocalProfiles:
    """Writing locks the home, so that no server starts meanwhile. Imports and exports only miLLM's own format."""

    def __init__(self, settings: Settings) -> None:
        self._home = Home(settings.home_folder)
        self._home.create()
        self._store = ProfileStore(Database(self._home.database))

    def entries(self, search: str) -> Sequence[ProfileEntry]:
        stored, _ = self._store.page(search=search, limit=_NO_LIMIT)
        return [profile_entry(one, is_active=False, incompatibility=NO_SERVER_REASON, model=None) for one in stored]

    def profile(self, name: str) -> Profile:
        return self._store.find(name)

    def active_steering(self) -> SteeringRequest:
        raise CannotStart("--active needs a running server; start one, or say where it is with --url")

    def export(self, name: str, format: str, skip: str | None) -> bytes:
        if format != "millm" or skip:
            raise CannotStart("--format and --skip need a running server; start one, or leave them out")
        return self._store.find(name).model_dump_json(indent=2, exclude_none=True).encode() + b"\n"

    def preview_import(self, document: SourceDocument, saes: Sequence[str]) -> Sequence[ImportRow]:
        profile = self._parse_document(document, saes)
        return [ImportRow(path="$", name=profile.name, notes=("the name is taken",) if self._has(profile) else ())]

    def import_document(
        self, document: SourceDocument, saes: Sequence[str], on_conflict: OnConflict, name: str | None
    ) -> Sequence[ImportRow]:
        profile = self._parse_document(document, saes)
        if name is not None:
            profile = Profile.model_validate({**profile.model_dump(), "name": name})
        with self._home.lock():
            if on_conflict == "rename":
                profile = profile.model_copy(update={"name": self._store.free_name(profile.name)})
            return [ImportRow(path="$", name=profile.name, did=self._store_profile(profile, on_conflict))]

    def _store_profile(self, profile: Profile, on_conflict: OnConflict) -> ImportAction:
        """Raises ProfileNameTaken."""
        if on_conflict == "skip" and self._has(profile):
            return "skipped"
        if on_conflict == "replace" and self._has(profile):
            self._store.replace(profile.name, profile)
            return "replaced"
        self._store.add(profile)
        return "added"

    def _parse_document(self, document: SourceDocument, saes: Sequence[str]) -> Profile:
        if saes or not document.content.lstrip().startswith(b"{"):
            raise InvalidImport(
                f"{document.name}: only miLLM's own profiles can be imported without a server; start one, and try again"
            )
        return parse_profile(document.content, document.name)

    def _has(self, profile: Profile) -> bool:
        """Whether a stored profile has this name."""
        return name_key(profile.name) in {name_key(one.name) for one in self._store.all()}


class _ImportRows(msgspec.Struct, frozen=True):
    entries: tuple[ImportRow, ...]


class RemoteProfiles:
    def __init__(self, remote: RemoteServer) -> None:
        self._remote = remote

    def entries(self, search: str) -> Sequence[ProfileEntry]:
        entries: list[ProfileEntry] = []
        while True:
            query = urlencode({"search": search, "limit": _PAGE_SIZE, "offset": len(entries)})
            page = self._remote.request("GET", f"/api/profiles?{query}", ProfilePage)
            entries += page.profiles
            if not page.profiles or len(entries) >= page.total:
                return entries

    def profile(self, name: str) -> Profile:
        return Profile.model_validate(self._remote.request("GET", _profile_path(name), ProfileDetail).profile)

    def active_steering(self) -> SteeringRequest:
        """A request without features if no steering is active."""
        state = self._remote.request("GET", "/api/steering", SteeringState)
        return SteeringRequest.model_validate(state.steering or {})

    def export(self, name: str, format: str, skip: str | None) -> bytes:
        query = urlencode({"format": format, **({"skip": skip} if skip else {})})
        return self._remote.get_file(f"{_profile_path(name)}/export?{query}")

    def preview_import(self, document: SourceDocument, saes: Sequence[str]) -> Sequence[ImportRow]:
        return self._post("/api/profiles/import/preview", document, [("sae", sae) for sae in saes])

    def import_document(
        self, document: SourceDocument, saes: Sequence[str], on_conflict: OnConflict, name: str | None
    ) -> Sequence[ImportRow]:
        query = [("on_conflict", on_conflict), *(("sae", sae) for sae in saes), *([("as", name)] if name else [])]
        return self._post("/api/profiles/import", document, query)

    def _post(self, path: str, document: SourceDocument, query: list[tuple[str, str]]) -> Sequence[ImportRow]:
        path = f"{path}?{urlencode(query)}"
        return self._remote.request("POST", path, _ImportRows, document=document.content).entries


def _profile_path(name: str) -> str:
    return f"/api/profiles/{quote(name, safe='')}"


ProfilesClient = RemoteProfiles | LocalProfiles


def _open_profiles(url: str | None, api_key: str | None) -> ProfilesClient:
    remote = connect_if_running(url, api_key)
    return RemoteProfiles(remote) if remote else LocalProfiles(Settings.load())


group = typer.Typer(
    help="""List, choose, compare, import and export profiles: saved steerings.

    Example:

        millm profiles use yelling

    Without a running server, `list`, `show`, `diff`, `export` and `import` use the profiles on this disk.
    """,
    no_args_is_help=True,
    rich_markup_mode="rich",
)
ProfileNameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="As `millm profiles list` shows it.", show_default=False)
]


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
    print_result(_open_profiles(url, api_key).entries(search), tables.profiles_table, as_json=as_json)


@group.command()
def show(name: ProfileNameArgument, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show the features and all other fields of a profile.

    Example:

        millm profiles show yelling
    """
    profile = _open_profiles(url, api_key).profile(name)
    if as_json:
        print_json(profile.model_dump(mode="json", exclude_none=True))
    else:
        stdout_console().print(tables.profile_details(profile))


@group.command()
def use(name: ProfileNameArgument, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Steer every request that does not say otherwise with a profile, from the next token on.

    Example:

        millm profiles use yelling
    """
    entry = connect(url, api_key).request("POST", f"{_profile_path(name)}/activate", ProfileEntry)
    if as_json:
        print_json(entry)
    else:
        print_line(stdout_console(), f"{entry.name} steers the server; `millm profiles off` ends that")


@group.command()
def off(as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Steer with nothing: the base model answers, unless a request says otherwise.

    Example:

        millm profiles off
    """
    status = connect(url, api_key).request("POST", "/api/profiles/deactivate", ServerStatus)
    print_result(status, lambda _: "nothing steers the server", as_json=as_json)


@group.command("import")
def import_profiles(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Files, `-` for stdin, or Neuronpedia addresses.")
    ],
    preview: Annotated[bool, typer.Option("--preview", help="Only show what each would become.")] = False,
    on_conflict: Annotated[
        str, typer.Option("--on-conflict", help="If the name is taken: refuse, rename, replace or skip.")
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
    policy = msgspec.convert(on_conflict, OnConflict)
    rows: list[ImportRow] = []
    for document in [read_document(source) for source in sources]:
        if preview:
            rows += profiles.preview_import(document, saes)
        else:
            rows += profiles.import_document(document, saes, policy, name)
    print_result(rows, tables.import_table, as_json=as_json)


@group.command()
def export(
    name: ProfileNameArgument,
    format: Annotated[
        str, typer.Option("--format", help="millm, adr, mistudio, neuronpedia, lm-eval or gguf.")
    ] = "millm",
    output: Annotated[Path, typer.Option("--output", "-o", help="A file; `-` is stdout.")] = Path("-"),
    skip: Annotated[
        str | None,
        typer.Option(help="default, none or special: export with this skip instead, for tools without another."),
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
    print_line(stderr_console(), f"{output}: {len(document):,} bytes")


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
    left = _load_steering(profiles, before)
    right = _load_steering(profiles, after) if after else profiles.active_steering()
    differences = tables.diff_steerings(left, right)
    if as_json:
        print_json([one._asdict() for one in differences])
    else:
        stdout_console().print(tables.difference_table(differences, before, after or "active"))


def _load_steering(profiles: ProfilesClient, source: str) -> SteeringRequest:
    return read_profile(Path(source)) if source.endswith(".json") else profiles.profile(source)
