"""A download as it goes, in two lines: a job in, something to draw out. Knows no server."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from millm.cli.columns import plain_text
from millm.cli.ids import IdText
from millm.cli.quantities import format_bytes, format_bytes_progress, format_duration, format_file_count
from millm.hub.jobs import ACTIVE_STATES, DownloadJob

_JOB_BAR_WIDTH = 24
_JOB_STATE_TEXTS = {
    "queued": "waits for its turn",
    "resolving": "asking Hugging Face what there is",
    "verifying": "comparing every file's hash",
    "converting": "converting to a format that can be read",
    "cancelled": "cancelled; what is finished stays",
    "interrupted": "interrupted; what is finished stays",
}


def job_lines(job: DownloadJob) -> RenderableType:
    line = _job_bar(job) if job.total and job.state in ACTIVE_STATES else plain_text(f"  {job_state_text(job)}")
    waits = [plain_text(f"  {job_state_text(job)}")] if job.total and job.state in ACTIVE_STATES - {"running"} else []
    return Group(IdText(job.name), line, *waits)


def job_state_text(job: DownloadJob) -> str:
    """In words; a wait or a failure with its reason."""
    match job.state:
        case "running":
            return "downloading"
        case "waiting":
            left = "" if job.retry_in is None else f" {format_duration(job.retry_in)}"
            return f"waiting{left}: {job.problem.message if job.problem else 'the network'}"
        case "installed":
            return f"installed, {format_bytes(job.total)} in {format_file_count(job.files_total)}"
        case "failed":
            return f"failed: {job.problem.message if job.problem else 'no reason was told'}"
    return _JOB_STATE_TEXTS[job.state]


def job_progress_text(job: DownloadJob) -> str:
    """Bytes, speed, time left, files: 53 characters at most."""
    speed = [f"{format_bytes(job.speed)}/s"] if job.speed is not None else []
    left = [f"{format_duration(job.seconds_left)} left"] if job.seconds_left is not None else []
    of_files = [f"{job.files_done}/{format_file_count(job.files_total)}"]
    return "  ".join([format_bytes_progress(job.done, job.total), *speed, *left, *of_files])


def _job_bar(job: DownloadJob) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_row(
        "", ProgressBar(total=job.total, completed=job.done, width=_JOB_BAR_WIDTH), Text(job_progress_text(job))
    )
    return line
