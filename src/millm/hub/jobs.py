"""Downloads as data: specifications, jobs, previews, the worker's protocol, the tables `jobs` and `installed`.

The worker reads one command from standard input and writes events to standard output, a JSON line each. The token goes
by the command alone, where no other process sees it.
"""

import re
import sqlite3
import time
from typing import Literal

import msgspec
import structlog
from msgspec.structs import replace

from millm.database import Database
from millm.errors import InvalidRequest

log = structlog.get_logger()

ArtifactKind = Literal["model", "sae"]
JobState = Literal[
    "queued", "resolving", "running", "waiting", "verifying", "converting",
    "installed", "failed", "cancelled", "interrupted",
]  # fmt: skip
"""`waiting`: until the next try; `interrupted`: the server stopped during the download, which can be resumed."""
ACTIVE_STATES: frozenset[JobState] = frozenset(("queued", "resolving", "running", "waiting", "verifying", "converting"))


class DownloadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a model or an SAE in a Hugging Face repository."""

    kind: ArtifactKind
    repository: str
    """`owner/name`."""
    revision: str = "main"
    path: str = ""
    """An SAE's folder in the repository, e.g. `layer_12/width_16k/average_l0_82`; empty: the root."""

    @property
    def name(self) -> str:
        return public_id(self.repository, self.revision, self.path)


def public_id(repository: str, revision: str, subpath: str = "") -> str:
    """`owner/name`, `owner/name/path/inside`, with `@revision` where it is not `main`."""
    id = f"{repository}/{subpath}" if subpath else repository
    return id if revision == "main" else f"{id}@{revision}"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed or waits."""

    code: str
    """A code of `millm.errors`."""
    message: str
    link: str | None = None
    """A page to open, e.g. to accept a licence."""


class RemoteModel(msgspec.Struct, frozen=True, kw_only=True):
    """A hit of Hugging Face's model search."""

    id: str
    """`owner/name`."""
    downloads: int
    """In the last thirty days."""
    likes: int
    gated: bool
    """The licence has to be accepted on the model's page first."""
    parameters: int | None
    known_saes: int
    """The number of SAEs for it in the catalogue."""


class DownloadJob(msgspec.Struct, frozen=True, kw_only=True):
    """A download from `queued` to `installed`."""

    id: str
    asked: DownloadSpec
    name: str
    """The id in the library."""
    state: JobState
    commit: str | None = None
    """The 40 digits that the revision resolved to."""
    done: int = 0
    """Bytes on disk, including files that were there before."""
    total: int = 0
    files_done: int = 0
    files_total: int = 0
    speed: float | None = None
    """Bytes per second, smoothed; None while no bytes arrive."""
    seconds_left: float | None = None
    attempt: int = 1
    retry_in: float | None = None
    """Seconds until the next try, while the job waits."""
    problem: Problem | None = None
    created: float
    """Seconds since 1970."""
    updated: float


class PreviewFile(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    size: int
    is_here: bool
    """In the cache already, with the right size."""


class DownloadPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a download would fetch."""

    asked: DownloadSpec
    name: str
    commit: str
    files: tuple[PreviewFile, ...]
    size: int
    """Bytes of the selected files."""
    to_download: int
    """Bytes of the selected files that are not in the cache."""
    skipped: int
    """Bytes of the repository's other files: pickles, code, other exports, other SAEs."""
    licence: str | None = None
    gated: bool = False
    """The licence has to be accepted on the repository's page first."""
    has_access: bool = True
    """With the token, if any."""
    link: str
    """The repository's page."""
    architecture: str | None = None
    dtype: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    """The checkpoint's own quantisation."""
    needs_remote_code: bool = False
    known_saes: int = 0
    """The number of SAEs for this model in the catalogue."""
    disk_free: int
    disk_reserve: int
    """Bytes that every download leaves free."""

    @property
    def fits_disk(self) -> bool:
        return self.to_download + self.disk_reserve <= self.disk_free


_REPOSITORY = re.compile(r"(?P<owner>\w[\w.-]{0,95})/(?P<name>\w[\w.-]{0,95})", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9._\-/]{1,128}")
_PART = re.compile(r"[^/\\\x00-\x1f*?\[\]]{1,255}")


def parse_spec(name: str, kind: ArtifactKind, revision: str = "main") -> DownloadSpec:
    """`owner/name`, an SAE's `owner/name/path/inside`, either with `@revision`. Raises InvalidRequest."""
    id, _, named_revision = name.strip().partition("@")
    if named_revision and revision not in ("main", named_revision):
        raise InvalidRequest(f"{name!r} and revision {revision!r} name two revisions; give one", param="revision")
    parts = id.rstrip("/").split("/")
    spec = DownloadSpec(
        kind=kind, repository="/".join(parts[:2]), revision=named_revision or revision, path="/".join(parts[2:])
    )
    check_spec(spec)
    return spec


def check_spec(spec: DownloadSpec) -> None:
    """Raises InvalidRequest for an invalid repository, revision or path."""
    if not _REPOSITORY.fullmatch(spec.repository) or ".." in spec.repository or "--" in spec.repository:
        raise InvalidRequest(f"{spec.name!r} is no Hugging Face id (owner/name)", param="id")
    if not _REVISION.fullmatch(spec.revision) or ".." in spec.revision or spec.revision.startswith("/"):
        raise InvalidRequest(
            f"{spec.revision!r} is no revision: a branch, a tag or a commit, without '..'", param="revision"
        )
    if spec.path and spec.kind == "model":
        raise InvalidRequest(f"{spec.name!r}: a model is a whole repository; give {spec.repository!r}", param="id")
    parts = spec.path.split("/") if spec.path else []
    if not all(_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise InvalidRequest(f"{spec.name!r}: a path inside a repository cannot hold '..' or wildcards", param="id")


class InstalledFile(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    """In the repository."""
    size: int
    hash: str
    """sha256, or git's sha1 of a blob for small files: also the blob's name in the cache."""


class InstallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A verified download: which files, how large, at which commit."""

    repository: str
    commit: str
    path: str = ""
    files: tuple[InstalledFile, ...]

    def sizes(self) -> dict[str, int]:
        """By the paths in the model's or the SAE's folder."""
        prefix = f"{self.path}/" if self.path else ""
        return {file.path.removeprefix(prefix): file.size for file in self.files}


InstallKey = tuple[ArtifactKind, str, str, str]
"""Kind, repository, commit, path."""


def load_install_records(database: Database) -> dict[InstallKey, InstallRecord]:
    records: dict[InstallKey, InstallRecord] = {}
    for kind, name, body in database.read("SELECT kind, name, body FROM installed"):
        try:
            record = msgspec.json.decode(body, type=InstallRecord)
        except msgspec.DecodeError as error:
            log.error("library.row_unreadable", name=name, reason=str(error))
            continue
        records[kind, record.repository, record.commit, record.path] = record
    return records


def latest_jobs(database: Database) -> dict[InstallKey, DownloadJob]:
    """The newest job for each commit of each model and SAE."""
    jobs: dict[InstallKey, DownloadJob] = {}
    for (body,) in database.read("SELECT body FROM jobs"):
        try:
            job = msgspec.json.decode(body, type=DownloadJob)
        except msgspec.DecodeError as error:
            log.error("library.job_unreadable", reason=str(error))
            continue
        key = (job.asked.kind, job.asked.repository, job.commit or "", job.asked.path)
        if key not in jobs or jobs[key].created < job.created:
            jobs[key] = job
    return jobs


def delete_install_record(database: Database, key: InstallKey) -> None:
    def change(connection: sqlite3.Connection) -> None:
        for kind, name, body in connection.execute("SELECT kind, name, body FROM installed").fetchall():
            record = msgspec.json.decode(body, type=InstallRecord)
            if (kind, record.repository, record.commit, record.path) == key:
                connection.execute("DELETE FROM installed WHERE kind = ? AND name = ?", (kind, name))

    database.write(change)


MAX_TRIES = 8
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
"""No pickles and no Python."""
EXCLUDED_MODEL_FILES = ("[!1]*/*", "1[!_]*/*", "1_[!P]*/*", "*/*/*", "consolidated*")
"""Folders hold other exports (onnx/, original/), except sentence-transformers' `1_Pooling`; `consolidated` repeats the
weights.
"""
CODE_FILES = "*.py"
SAE_FILES = ("*.safetensors", "*.npz", "*.json", "labels.jsonl")


class RepositoryCommand(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Fetch or preview one repository."""

    action: Literal["fetch", "preview"]
    spec: DownloadSpec
    allow_patterns: tuple[str, ...]
    """Patterns of repository paths."""
    ignore_patterns: tuple[str, ...]
    token: str | None
    """None: the token stored by `hf auth login`, if any."""
    disk_reserve: int
    """Bytes of the disk to leave free."""
    tries: int = MAX_TRIES
    backoff: float = 1.0
    """Seconds before the second try; doubled for each further one, up to a minute."""
    accepts_cached: bool = False
    """Use a complete snapshot in the cache where the hub is unreachable."""


class ModelSearchCommand(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Search for models by words of their names."""

    words: str
    limit: int
    token: str | None
    """As in `RepositoryCommand`."""


class TransferProgress(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Sent five times a second."""

    state: JobState
    commit: str | None = None
    done: int = 0
    total: int = 0
    files_done: int = 0
    files_total: int = 0
    attempt: int = 1
    retry_in: float | None = None
    problem: Problem | None = None
    """Why the transfer waits."""


class FetchResult(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The last event of a successful download."""

    commit: str
    folder: str
    """The snapshot's folder, or the SAE's folder in it."""
    files: tuple[InstalledFile, ...]
    """The verified files; empty for a snapshot that was only looked up in the cache."""


class PreviewResult(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    preview: DownloadPreview


class ModelSearchResult(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The last event of a search."""

    models: tuple[RemoteModel, ...]


class WorkerFailure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The last event of a failed command."""

    problem: Problem


WorkerEvent = TransferProgress | FetchResult | PreviewResult | ModelSearchResult | WorkerFailure


def file_patterns(spec: DownloadSpec, trusted: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(patterns to allow, patterns to ignore); `trusted`: `owner/name@commit`s whose code may run."""
    if spec.kind == "model":
        is_trusted = spec.repository in {entry.partition("@")[0] for entry in trusted}
        return (*MODEL_FILES, CODE_FILES) if is_trusted else MODEL_FILES, EXCLUDED_MODEL_FILES
    prefix = f"{spec.path}/" if spec.path else ""
    return tuple(f"{prefix}{name}" for name in SAE_FILES), (f"{prefix}*/*",)


_SAVE_JOB = "INSERT INTO jobs (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
_INSTALL = (
    "INSERT INTO installed (kind, name, body) VALUES (?, ?, ?)"
    " ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body"
)


class JobStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> tuple[list[DownloadJob], list[DownloadJob]]:
        """(all jobs, those of them that a server's end has just interrupted)."""
        jobs = [msgspec.json.decode(body, type=DownloadJob) for (body,) in self._database.read("SELECT body FROM jobs")]
        interrupted = [as_interrupted(job) for job in jobs if job.state in ACTIVE_STATES]
        if interrupted:
            rows = [(job.id, _json(job)) for job in interrupted]
            self._database.write(lambda connection: connection.executemany(_SAVE_JOB, rows))
        return [*(job for job in jobs if job.state not in ACTIVE_STATES), *interrupted], interrupted

    def save(self, job: DownloadJob) -> None:
        self._database.write(lambda connection: _save(connection, job))

    def install(self, job: DownloadJob, result: FetchResult) -> None:
        """Write the job's end and the install record in one transaction."""
        spec = job.asked
        record = InstallRecord(repository=spec.repository, commit=result.commit, path=spec.path, files=result.files)

        def change(connection: sqlite3.Connection) -> None:
            _save(connection, job)
            connection.execute(_INSTALL, (spec.kind, spec.name, _json(record)))

        self._database.write(change)

    def delete(self, id: str) -> None:
        self._database.write(lambda connection: connection.execute("DELETE FROM jobs WHERE id = ?", (id,)))


def as_interrupted(job: DownloadJob) -> DownloadJob:
    return replace(
        job, state="interrupted", speed=None, seconds_left=None, retry_in=None, problem=None, updated=time.time()
    )


def _save(connection: sqlite3.Connection, job: DownloadJob) -> None:
    connection.execute(_SAVE_JOB, (job.id, _json(job)))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
