"""`millm profiles`: the saved steerings of the running server; without one, those on this disk."""

import sys
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import typer

from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stderr_console, stdout_console
from millm.cli.profile_diff import diff_steerings
from millm.cli.profile_import import ImportRow, OnConflict, read_document
from millm.cli.profile_tables import difference_table, import_table, profile_details, profiles_table
from millm.cli.profiles_here import LocalProfiles
from millm.cli.profiles_remote import RemoteProfiles
from millm.cli.remote import connect
from millm.errors import CannotStart
from millm.profiles.schema import SteeringRequest
from millm.profiles.store import read_profile
from millm.settings import Settings

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
