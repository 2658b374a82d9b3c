"""`millm pull`: download a model or an SAE from Hugging Face, and see what it is before."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from millm.cli.door import LibraryClient, open_library
from millm.cli.job_line import job_lines
from millm.cli.options import ApiKey, Url, Yes
from millm.cli.output import print_json_line, stderr_console
from millm.cli.quantities import format_bytes
from millm.cli.sheets import preview_details
from millm.errors import DownloadFailed, GatedRepository, InsufficientDisk, MillmError, error_from_code
from millm.hub.jobs import ArtifactKind, DownloadJob, DownloadPreview, DownloadSpec, parse_spec

CONFIRM_ABOVE_BYTES = 10e9
"""Bytes: a person is asked before more than that is fetched."""


def pull(
    id: Annotated[
        str,
        typer.Argument(metavar="ID", help="owner/name is a model, owner/name/path/inside an SAE.", show_default=False),
    ],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
    sae: Annotated[bool, typer.Option("--sae", help="It is an SAE at the root of its repository.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End its download, which a server goes on with.")] = False,
    yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="The job at each change, a line of JSON each.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Download a model or an SAE from Hugging Face, and see what it is before.

    Examples:

        millm pull google/gemma-2-2b

        millm pull google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71

    What is finished is kept: the same command goes on where the last one ended.
    """
    asked = parse_spec(id, kind_of(id, sae), revision)
    library = open_library(url, api_key)
    job = library.cancel(asked) if cancel else _preview_and_pull(library, asked, yes=yes, as_json=as_json)
    if cancel:
        stderr_console().print(job_lines(job))
    elif job.state != "installed":
        raise _download_error(job)


def kind_of(id: str, is_sae: bool) -> ArtifactKind:
    """By how deep it is: a model is a whole repository."""
    return "sae" if is_sae or id.partition("@")[0].strip("/").count("/") > 1 else "model"


def check_preview(preview: DownloadPreview) -> None:
    """Raises GatedRepository or InsufficientDisk, with what to do."""
    if not preview.has_access:
        raise GatedRepository(
            f"{preview.asked.repository} is gated: accept its licence at {preview.link} and set HF_TOKEN to your token"
        )
    if not preview.fits_disk:
        raise InsufficientDisk(
            f"{preview.name} needs {format_bytes(preview.to_download)}, and of the {format_bytes(preview.disk_free)} that are free"
            f" {format_bytes(preview.disk_reserve)} are kept: make room (`millm list`, `millm rm ID`), or lower"
            " MILLM_DOWNLOAD_RESERVE_BYTES"
        )


def _preview_and_pull(library: LibraryClient, spec: DownloadSpec, *, yes: bool, as_json: bool) -> DownloadJob:
    console = stderr_console()
    preview = library.preview(spec)
    if not as_json:
        console.print(preview_details(preview))
    check_preview(preview)
    if preview.to_download > CONFIRM_ABOVE_BYTES and sys.stdin.isatty() and not yes:
        typer.confirm(f"Download {format_bytes(preview.to_download)}?", abort=True, err=True)
    try:
        return library.pull(spec, print_json_line) if as_json else _pull_with_progress(library, spec, console)
    except KeyboardInterrupt:
        console.print(library.interrupt_hint.format(name=spec.name), markup=False, soft_wrap=True)
        raise


def _pull_with_progress(library: LibraryClient, spec: DownloadSpec, console: Console) -> DownloadJob:
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        return library.pull(spec, lambda job: live.update(job_lines(job)))


def _download_error(job: DownloadJob) -> MillmError:
    if job.problem is None or job.state != "failed":
        return DownloadFailed(f"{job.name} was {job.state}; `millm pull {job.name}` goes on with it")
    link = f" ({job.problem.link})" if job.problem.link and job.problem.link not in job.problem.message else ""
    return error_from_code(job.problem.code, f"{job.problem.message}{link}")
