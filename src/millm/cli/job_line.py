"""A download as it goes, in two lines: a job in, something to draw out. Knows no server."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from millm.cli.columns import plain
from millm.cli.ids import Id
from millm.cli.quantities import duration, files, progress, size
from millm.hub.jobs import ACTIVE, Job

_BAR = 24
_STATES = {
    "queued": "waits for its turn",
    "resolving": "asking Hugging Face what there is",
    "verifying": "comparing every file's hash",
    "converting": "converting to a format that can be read",
    "cancelled": "cancelled; what is finished stays",
    "interrupted": "interrupted; what is finished stays",
}


def job_lines(job: Job) -> RenderableType:
    line = _bar(job) if job.total and job.state in ACTIVE else plain(f"  {state_line(job)}")
    waits = [plain(f"  {state_line(job)}")] if job.total and job.state in ACTIVE - {"running"} else []
    return Group(Id(job.name), line, *waits)


def state_line(job: Job) -> str:
    """In words; a wait or a failure with its reason."""
    match job.state:
        case "running":
            return "downloading"
        case "waiting":
            left = "" if job.retry_in is None else f" {duration(job.retry_in)}"
            return f"waiting{left}: {job.problem.message if job.problem else 'the network'}"
        case "installed":
            return f"installed, {size(job.total)} in {files(job.files_total)}"
        case "failed":
            return f"failed: {job.problem.message if job.problem else 'no reason was told'}"
    return _STATES[job.state]


def figures(job: Job) -> str:
    """Bytes, speed, time left, files: 53 characters at most."""
    speed = [f"{size(job.speed)}/s"] if job.speed is not None else []
    left = [f"{duration(job.seconds_left)} left"] if job.seconds_left is not None else []
    of_files = [f"{job.files_done}/{files(job.files_total)}"]
    return "  ".join([progress(job.done, job.total), *speed, *left, *of_files])


def _bar(job: Job) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_row("", ProgressBar(total=job.total, completed=job.done, width=_BAR), Text(figures(job)))
    return line
