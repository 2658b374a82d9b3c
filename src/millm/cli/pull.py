"""`millm pull`: download a model or an SAE from Hugging Face, and see what it is before."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from millm.cli.door import AnyLibrary, open_library
from millm.cli.job_line import job_lines
from millm.cli.options import ApiKey, Url, Yes
from millm.cli.output import notes, tell_json_line
from millm.cli.quantities import size
from millm.cli.sheets import preview_sheet
from millm.errors import DownloadFailed, GatedRepository, InsufficientDisk, MillmError, from_code
from millm.hub.downloads import asked_for
from millm.hub.jobs import Asked, Job, Kind, Preview

ASKS_FROM = 10e9
"""Bytes: a person is asked before more than that is fetched."""


def run(
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
    asked = asked_for(id, kind_of(id, sae), revision)
    library = open_library(url, api_key)
    job = library.cancel(asked) if cancel else _pull(library, asked, yes=yes, as_json=as_json)
    if cancel:
        notes().print(job_lines(job))
    elif job.state != "installed":
        raise _failure(job)


def kind_of(id: str, is_sae: bool) -> Kind:
    """By how deep it is: a model is a whole repository."""
    return "sae" if is_sae or id.partition("@")[0].strip("/").count("/") > 1 else "model"


def check(preview: Preview) -> None:
    """Raises GatedRepository or InsufficientDisk, with what to do."""
    if not preview.has_access:
        raise GatedRepository(
            f"{preview.asked.repository} is gated: accept its licence at {preview.link} and set HF_TOKEN to your token"
        )
    if not preview.fits_disk:
        raise InsufficientDisk(
            f"{preview.name} needs {size(preview.to_download)}, and of the {size(preview.disk_free)} that are free"
            f" {size(preview.disk_reserve)} are kept: make room (`millm list`, `millm rm ID`), or lower"
            " MILLM_DOWNLOAD_RESERVE_BYTES"
        )


def _pull(library: AnyLibrary, asked: Asked, *, yes: bool, as_json: bool) -> Job:
    console = notes()
    preview = library.preview(asked)
    if not as_json:
        console.print(preview_sheet(preview))
    check(preview)
    if preview.to_download > ASKS_FROM and sys.stdin.isatty() and not yes:
        typer.confirm(f"Download {size(preview.to_download)}?", abort=True, err=True)
    try:
        return library.pull(asked, tell_json_line) if as_json else _shown(library, asked, console)
    except KeyboardInterrupt:
        console.print(library.on_interrupt.format(name=asked.name), markup=False, soft_wrap=True)
        raise


def _shown(library: AnyLibrary, asked: Asked, console: Console) -> Job:
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        return library.pull(asked, lambda job: live.update(job_lines(job)))


def _failure(job: Job) -> MillmError:
    if job.problem is None or job.state != "failed":
        return DownloadFailed(f"{job.name} was {job.state}; `millm pull {job.name}` goes on with it")
    link = f" ({job.problem.link})" if job.problem.link and job.problem.link not in job.problem.message else ""
    return from_code(job.problem.code, f"{job.problem.message}{link}")
