"""The commands of the library: `list`, `show`, `estimate`, `pull`, `import`, `rm`, and `saes`, which searches."""

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live

from millm.cli import library_tables as tables
from millm.cli.http_client import connect
from millm.cli.library_client import LibraryClient, LocalLibrary, find_entry, open_library
from millm.cli.options import ApiKey, AsJson, Url, Yes, given_options, parse_model_options, parse_width
from millm.cli.terminal import (
    format_bytes,
    print_json_line,
    print_line,
    print_result,
    stderr_console,
    stdout_console,
)
from millm.engine.messages import Quantization
from millm.errors import CannotStart, DownloadFailed, GatedRepository, InsufficientDisk, MillmError, error_from_code
from millm.hub.catalog import SITES, RegistryPage, count_saes, search_saes
from millm.hub.entries import ModelEntry, SaeEntry
from millm.hub.jobs import ArtifactKind, DownloadJob, DownloadPreview, DownloadSpec, parse_spec
from millm.hub.memory_estimate import Estimate
from millm.settings import Settings
from millm.status import ModelSpec

EntryId = Annotated[str, typer.Argument(metavar="ID", help="As `millm list` shows it.", show_default=False)]
CONFIRM_ABOVE_BYTES = 10e9
"""Larger downloads need a confirmation on a terminal."""
QUANTIZATIONS: tuple[Quantization, ...] = ("none", "8bit", "4bit")


def list_library(
    saes: Annotated[bool, typer.Option("--saes", help="The SAEs instead of the models.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """List the models of the library, or its SAEs.

    Example:

        millm list --saes

    Reads the running server's library; without a server, this disk: MILLM_HOME and Hugging Face's cache.
    """
    library = open_library(url, api_key)
    if saes:
        print_result(library.saes(), tables.saes_table, as_json=as_json)
    else:
        print_result(library.models(), tables.models_table, as_json=as_json)


class EntryDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON output of `millm show`."""

    entry: ModelEntry | SaeEntry
    known_saes: int | None = None
    """SAEs of the registry for this model; None for an SAE."""
    estimates: tuple[Estimate, ...] = ()
    """Of memory, for each quantization."""


def show(id: EntryId, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Show everything that is known about a model or an SAE of the library.

    Example:

        millm show google/gemma-2-2b

    For a model also the memory that it would take, in as many and in fewer bits.
    """
    library = open_library(url, api_key)
    print_result(_collect_details(library, find_entry(library, id)), _details_table, as_json=as_json)


def _collect_details(library: LibraryClient, entry: ModelEntry | SaeEntry) -> EntryDetails:
    """Estimates only for a complete model."""
    if isinstance(entry, SaeEntry):
        return EntryDetails(entry=entry)
    quantizations = QUANTIZATIONS if entry.state == "whole" else ()
    return EntryDetails(
        entry=entry,
        known_saes=count_saes(entry.id.partition("@")[0]),
        estimates=tuple(library.estimate(ModelSpec(id=entry.id, quantization=name)) for name in quantizations),
    )


def _details_table(details: EntryDetails) -> RenderableType:
    if isinstance(details.entry, SaeEntry):
        return tables.sae_details(details.entry)
    model = tables.model_details(details.entry, details.known_saes or 0)
    return Group(model, "", tables.quantizations_table(details.estimates)) if details.estimates else model


def estimate(
    id: EntryId,
    quantization: Annotated[str | None, typer.Option(help="none, 8bit or 4bit.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one sequence (default: the model's own).")
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, max=256, help="Sequences that run at once.")] = None,
    sae: Annotated[list[str] | None, typer.Option(help="An SAE to attach. Repeatable.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Estimate how much memory a model would take, part by part, without loading it.

    Example:

        millm estimate google/gemma-2-2b --quantization 4bit --context 8192 --slots 8

    Options that are left out have the server's values.
    """
    spec = parse_model_options(id, quantization=quantization, dtype=dtype, device=device, context=context, slots=slots)
    print_result(open_library(url, api_key).estimate(spec, sae or ()), tables.estimate_table, as_json=as_json)


def import_folder(
    folder: Annotated[Path, typer.Argument(metavar="PATH", help="With the files of a model, or of an SAE.")],
    name: Annotated[str | None, typer.Option(help="Its name in the library (default: the folder's name).")] = None,
    sae: Annotated[bool, typer.Option("--sae", help="It is an SAE.")] = False,
) -> None:
    """Add a folder of yours to the library. It is linked, not copied.

    Example:

        millm import ~/models/my-finetune --name mine

    Only here, never over HTTP: a server must not learn paths from outside.
    """
    library = LocalLibrary(Settings.load())
    if sae:
        details = tables.sae_details(library.import_sae(folder, name))
    else:
        details = tables.model_details(library.import_model(folder, name), known_saes=0)
    stdout_console().print(details)


def pull(
    id: Annotated[
        str,
        typer.Argument(metavar="ID", help="owner/name is a model, owner/name/path/inside an SAE.", show_default=False),
    ],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
    sae: Annotated[bool, typer.Option("--sae", help="It is an SAE at the root of its repository.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel its download on the running server.")] = False,
    yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="The job at each change, a line of JSON each.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Download a model or an SAE from Hugging Face; shows first what it is.

    Examples:

        millm pull google/gemma-2-2b

        millm pull google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71

    Finished files stay: the same command resumes an interrupted download.
    """
    spec = parse_spec(id, kind_of(id, sae), revision)
    library = open_library(url, api_key)
    if cancel:
        stderr_console().print(tables.job_lines(library.cancel(spec)))
        return
    job = _preview_and_pull(library, spec, yes=yes, as_json=as_json)
    if job.state != "installed":
        raise _download_error(job)


def kind_of(id: str, is_sae: bool) -> ArtifactKind:
    """An id with a path inside the repository is an SAE's."""
    return "sae" if is_sae or id.partition("@")[0].strip("/").count("/") > 1 else "model"


def check_preview(preview: DownloadPreview) -> None:
    """Raises GatedRepository or InsufficientDisk, with the way out."""
    if not preview.has_access:
        raise GatedRepository(
            f"{preview.asked.repository} is gated: accept its licence at {preview.link} and set HF_TOKEN to your token"
        )
    if not preview.fits_disk:
        raise InsufficientDisk(
            f"{preview.name} needs {format_bytes(preview.to_download)}, and of the {format_bytes(preview.disk_free)}"
            f" that are free {format_bytes(preview.disk_reserve)} are reserved: make room (`millm list`,"
            " `millm rm ID`), or lower MILLM_DOWNLOAD_RESERVE_BYTES"
        )


def _preview_and_pull(library: LibraryClient, spec: DownloadSpec, *, yes: bool, as_json: bool) -> DownloadJob:
    console = stderr_console()
    preview = library.preview(spec)
    if not as_json:
        console.print(tables.preview_details(preview))
    check_preview(preview)
    if preview.to_download > CONFIRM_ABOVE_BYTES and sys.stdin.isatty() and not yes:
        typer.confirm(f"Download {format_bytes(preview.to_download)}?", abort=True, err=True)
    try:
        return library.pull(spec, print_json_line) if as_json else _pull_with_progress(library, spec, console)
    except KeyboardInterrupt:
        print_line(console, library.interrupt_hint.format(name=spec.name))
        raise


def _pull_with_progress(library: LibraryClient, spec: DownloadSpec, console: Console) -> DownloadJob:
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        return library.pull(spec, lambda job: live.update(tables.job_lines(job)))


def _download_error(job: DownloadJob) -> MillmError:
    if job.problem is None or job.state != "failed":
        return DownloadFailed(f"{job.name} was {job.state}; `millm pull {job.name}` goes on with it")
    link = f" ({job.problem.link})" if job.problem.link and job.problem.link not in job.problem.message else ""
    return error_from_code(job.problem.code, f"{job.problem.message}{link}")


def remove(id: EntryId, yes: Yes = False, url: Url = None, api_key: ApiKey = None) -> None:
    """Delete a model or an SAE from the disk; says first what is freed and what stays.

    Example:

        millm rm google/gemma-2-2b

    Files that other models, SAEs or programs share stay. Of an imported folder only the link goes.
    """
    library = open_library(url, api_key)
    entry = find_entry(library, id)
    if entry.origin != "builtin":  # a builtin entry is refused by `delete`
        print_line(stderr_console(), tables.deletion_line(entry))
        if not yes and not sys.stdin.isatty():
            raise CannotStart(f"deleting {id} needs a confirmation, and stdin is no terminal; add --yes")
        if not yes:
            typer.confirm("Delete it?", abort=True, err=True)
    stdout_console().print(tables.freed_line(library.delete(entry)))


def find_saes(
    text: Annotated[str, typer.Argument(help="Words of its repository, path or release.", show_default=False)] = "",
    model: Annotated[str | None, typer.Option(help="Hugging Face id of the model, or its short name.")] = None,
    layer: Annotated[int | None, typer.Option(min=0)] = None,
    site: Annotated[str | None, typer.Option(help=", ".join(SITES))] = None,
    width: Annotated[str | None, typer.Option(help="Features: 16384 or 16k.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many to show.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="How many to skip.")] = 0,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Search the public SAEs by model, layer, width and site; the most useful come first.

    Example:

        millm saes --model google/gemma-2-2b --layer 20 --width 16k

    Needs neither a server nor the network; with --url, searches that server's list.
    """
    features = parse_width(width) if width else None
    query: dict[str, Any] = given_options(
        model=model, layer=layer, site=site, width=features, text=text, limit=limit, offset=offset
    )
    if url:
        page = connect(url, api_key).request("GET", f"/api/registry/saes?{urlencode(query)}", RegistryPage)
    else:
        page = search_saes(**query)
    print_result(page, lambda page: tables.registry_table(page, offset), as_json=as_json)
