"""What a download is, for whoever asks: plain values that the API answers, the terminal shows and the disk keeps.

A name that somebody wrote → what is asked of Hugging Face, checked before anything is done.

What a finished and verified download left behind: the row that says which files, how large, at which commit.

What is said between a download's process and who started it: an order on its standard input, news on its output.

The token goes this way alone, where nobody else sees it.

Downloads in the database: a job is a row, and what was verified gets one in `installed`, in the same transaction.
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

ArtifactKind = Literal["model", "sae"]
JobState = Literal[
    "queued", "resolving", "running", "waiting", "verifying", "converting",
    "installed", "failed", "cancelled", "interrupted",
]  # fmt: skip
"""`waiting`: until the next try; `interrupted`: the server ended while it ran, and it goes on when told to."""
ACTIVE_STATES: frozenset[JobState] = frozenset(("queued", "resolving", "running", "waiting", "verifying", "converting"))
"""Something is being done for it."""


class DownloadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Files of a Hugging Face repository, by what they are for."""

    kind: ArtifactKind
    repository: str
    """`owner/name`."""
    revision: str = "main"
    path: str = ""
    """Of an SAE: its folder inside the repository, e.g. `layer_12/width_16k/average_l0_82`; empty: the root."""

    @property
    def name(self) -> str:
        """What clients call it: `owner/name`, `owner/name/path/inside`, with `@revision` where it is not `main`."""
        whole = f"{self.repository}/{self.path}" if self.path else self.repository
        return whole if self.revision == "main" else f"{whole}@{self.revision}"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed, or why it waits."""

    code: str
    """One of the errors' codes."""
    message: str
    link: str | None = None
    """A page to open, e.g. where a licence is accepted."""


class RemoteModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of Hugging Face's, as its search tells it."""

    id: str
    """`owner/name`."""
    downloads: int
    """Of the last thirty days."""
    likes: int
    gated: bool
    """Its licence has to be accepted on its page first."""
    parameters: int | None
    known_saes: int
    """SAEs for it that the registry knows."""


class DownloadJob(msgspec.Struct, frozen=True, kw_only=True):
    """A download, from asked for to installed."""

    id: str
    asked: DownloadSpec
    name: str
    """`asked.name`: what it will be called in the library."""
    state: JobState
    commit: str | None = None
    """The 40 digits that the revision stood for when it was resolved."""
    done: int = 0
    """Bytes on disk, those of files that were there before included."""
    total: int = 0
    files_done: int = 0
    files_total: int = 0
    speed: float | None = None
    """Bytes per second, smoothed; None while nothing moves."""
    seconds_left: float | None = None
    attempt: int = 1
    retry_in: float | None = None
    """Seconds until the next try, while it waits."""
    problem: Problem | None = None
    created: float
    """Seconds since 1970."""
    updated: float


class PreviewFile(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    size: int
    is_here: bool
    """In the cache already, whole."""


class DownloadPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a download would bring, found out without downloading it."""

    asked: DownloadSpec
    name: str
    commit: str
    files: tuple[PreviewFile, ...]
    size: int
    """Bytes of the files that are wanted."""
    to_download: int
    """Bytes of those that are not here."""
    skipped: int
    """Bytes of the repository's other files: pickles, code, other exports, other SAEs."""
    licence: str | None = None
    gated: bool = False
    """Its licence has to be accepted on its page first."""
    has_access: bool = True
    """With this token, or without one."""
    link: str
    """Its page."""
    architecture: str | None = None
    dtype: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    """How the checkpoint is quantised already, if it is."""
    needs_remote_code: bool = False
    known_saes: int = 0
    """SAEs for this model that the registry knows."""
    disk_free: int
    disk_reserve: int
    """Bytes that stay free whatever is downloaded."""

    @property
    def fits_disk(self) -> bool:
        return self.to_download + self.disk_reserve <= self.disk_free


_REPOSITORY = re.compile(r"(?P<owner>\w[\w.-]{0,95})/(?P<name>\w[\w.-]{0,95})", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9._\-/]{1,128}")
_PART = re.compile(r"[^/\\\x00-\x1f*?\[\]]{1,255}")


def parse_spec(name: str, kind: ArtifactKind, revision: str = "main") -> DownloadSpec:
    """`owner/name`, an SAE's `owner/name/path/inside`, either with `@revision`. Raises InvalidRequest."""
    whole, _, named = name.strip().partition("@")
    if named and revision not in ("main", named):
        raise InvalidRequest(f"{name!r} and revision {revision!r} name two revisions; give one", param="revision")
    parts = whole.rstrip("/").split("/")
    asked = DownloadSpec(
        kind=kind, repository="/".join(parts[:2]), revision=named or revision, path="/".join(parts[2:])
    )
    check_spec(asked)
    return asked


def check_spec(spec: DownloadSpec) -> None:
    """Raises InvalidRequest for what is no repository, revision or path inside one."""
    if not _is_repository(spec.repository):
        raise InvalidRequest(f"{spec.name!r} is no Hugging Face id (owner/name)", param="id")
    if not _REVISION.fullmatch(spec.revision) or ".." in spec.revision or spec.revision.startswith("/"):
        raise InvalidRequest(
            f"{spec.revision!r} is no revision: a branch, a tag or a commit, without '..'", param="revision"
        )
    if spec.path and spec.kind == "model":
        raise InvalidRequest(f"{spec.name!r}: a model is a whole repository; give {spec.repository!r}", param="id")
    if spec.path and not all(_is_part(part) for part in spec.path.split("/")):
        raise InvalidRequest(f"{spec.name!r}: a path inside a repository cannot hold '..' or wildcards", param="id")


def _is_repository(name: str) -> bool:
    return bool(_REPOSITORY.fullmatch(name)) and not any(word in name for word in ("..", "--"))


def _is_part(part: str) -> bool:
    return bool(_PART.fullmatch(part)) and part not in (".", "..")


log = structlog.get_logger()


class InstalledFile(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    """In the repository."""
    size: int
    hash: str
    """sha256, or of small files git's sha1 of a blob: also the blob's name in the cache."""


class InstallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model, or of one SAE's folder."""

    repository: str
    commit: str
    path: str = ""
    files: tuple[InstalledFile, ...]

    def sizes(self) -> dict[str, int]:
        """By the files' paths in the SAE's folder or the model's."""
        prefix = f"{self.path}/" if self.path else ""
        return {file.path.removeprefix(prefix): file.size for file in self.files}


InstallKey = tuple[ArtifactKind, str, str, str]
"""Kind, repository, commit, path."""


def load_install_records(database: Database) -> dict[InstallKey, InstallRecord]:
    rows = database.read("SELECT kind, name, body FROM installed")
    found: dict[InstallKey, InstallRecord] = {}
    for kind, name, body in rows:
        try:
            row = msgspec.json.decode(body, type=InstallRecord)
        except msgspec.DecodeError as error:
            log.error("library.row_unreadable", name=name, reason=str(error))
            continue
        found[kind, row.repository, row.commit, row.path] = row
    return found


def latest_jobs(database: Database) -> dict[InstallKey, DownloadJob]:
    """The newest for each commit of each model and SAE; of what has not been resolved yet there are no files."""
    found: dict[InstallKey, DownloadJob] = {}
    for (body,) in database.read("SELECT body FROM jobs"):
        try:
            job = msgspec.json.decode(body, type=DownloadJob)
        except msgspec.DecodeError as error:
            log.error("library.job_unreadable", reason=str(error))
            continue
        key = (job.asked.kind, job.asked.repository, job.commit or "", job.asked.path)
        if key not in found or found[key].created < job.created:
            found[key] = job
    return found


def delete_install_record(database: Database, key: InstallKey) -> None:
    """The row goes; what it told of may then go too."""

    def change(connection: sqlite3.Connection) -> None:
        for kind, name, body in connection.execute("SELECT kind, name, body FROM installed").fetchall():
            row = msgspec.json.decode(body, type=InstallRecord)
            if (kind, row.repository, row.commit, row.path) == key:
                connection.execute("DELETE FROM installed WHERE kind = ? AND name = ?", (kind, name))

    database.write(change)


MAX_TRIES = 8
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
"""No pickles and no Python."""
EXCLUDED_MODEL_FILES = ("[!1]*/*", "1[!_]*/*", "1_[!P]*/*", "*/*/*", "consolidated*")
"""Folders hold other exports (onnx/, original/), save sentence-transformers' `1_Pooling`; `consolidated` is the same
weights once more."""
CODE_FILES = "*.py"
SAE_FILES = ("*.safetensors", "*.npz", "*.json", "labels.jsonl")


class RepositoryCommand(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A line: one repository, to fetch or to look at."""

    action: Literal["fetch", "preview"]
    spec: DownloadSpec
    allow_patterns: tuple[str, ...]
    """Of the files that are wanted, by their paths in the repository."""
    ignore_patterns: tuple[str, ...]
    token: str | None
    """None: what `hf auth login` has stored, if that."""
    disk_reserve: int
    """Bytes of the disk that stay free."""
    tries: int = MAX_TRIES
    backoff: float = 1.0
    """Seconds before the second try; each further one waits twice as long, up to a minute."""
    accepts_cached: bool = False
    """Where the hub cannot be reached, what is whole in the cache will do."""


class ModelSearchCommand(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A line: the models whose names have these words."""

    words: str
    limit: int
    token: str | None
    """As an order's."""


class TransferProgress(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How far it is; told five times a second."""

    state: JobState
    commit: str | None = None
    done: int = 0
    total: int = 0
    files_done: int = 0
    files_total: int = 0
    attempt: int = 1
    retry_in: float | None = None
    problem: Problem | None = None
    """Why it waits."""


class FetchResult(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The last news of a download that went well."""

    commit: str
    folder: str
    """Of the snapshot, and of the SAE in it."""
    files: tuple[InstalledFile, ...]
    """Those that were compared with the hub; empty for what was only found in the cache."""


class PreviewResult(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    preview: DownloadPreview


class ModelSearchResult(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The last news of a search."""

    models: tuple[RemoteModel, ...]


class WorkerFailure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The last news of one that did not."""

    problem: Problem


WorkerEvent = TransferProgress | FetchResult | PreviewResult | ModelSearchResult | WorkerFailure


def file_patterns(spec: DownloadSpec, trusted: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(files that are wanted, and which of these are not); `trusted`: repositories whose code may run."""
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
        """(all jobs, those of them that ran when their server ended: now `interrupted`)."""
        jobs = [msgspec.json.decode(body, type=DownloadJob) for (body,) in self._database.read("SELECT body FROM jobs")]
        cut_off = [as_interrupted(job) for job in jobs if job.state in ACTIVE_STATES]
        if cut_off:
            self._database.write(lambda connection: _save_all(connection, cut_off))
        others = [job for job in jobs if job.state not in ACTIVE_STATES]
        return [*others, *cut_off], cut_off

    def save(self, job: DownloadJob) -> None:
        self._database.write(lambda connection: _save(connection, job))

    def install(self, job: DownloadJob, result: FetchResult) -> None:
        """The job's end and what it brought, both or neither."""
        asked = job.asked
        body = InstallRecord(
            repository=asked.repository,
            commit=result.commit,
            path=asked.path,
            files=result.files,
        )

        def change(connection: sqlite3.Connection) -> None:
            _save(connection, job)
            connection.execute(_INSTALL, (asked.kind, asked.name, _json(body)))

        self._database.write(change)

    def delete(self, id: str) -> None:
        self._database.write(lambda connection: connection.execute("DELETE FROM jobs WHERE id = ?", (id,)))


def as_interrupted(job: DownloadJob) -> DownloadJob:
    """It goes on when told to."""
    return replace(
        job, state="interrupted", speed=None, seconds_left=None, retry_in=None, problem=None, updated=time.time()
    )


def _save_all(connection: sqlite3.Connection, jobs: list[DownloadJob]) -> None:
    for job in jobs:
        _save(connection, job)


def _save(connection: sqlite3.Connection, job: DownloadJob) -> None:
    connection.execute(_SAVE_JOB, (job.id, _json(job)))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
