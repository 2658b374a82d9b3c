"""What is said between a download's process and who started it: an order on its standard input, news on its output.

The token goes this way alone, where nobody else sees it.
"""

from typing import Literal

import msgspec

from millm.hub.installed import InstalledFile
from millm.hub.jobs import DownloadPreview, DownloadSpec, JobState, Problem, RemoteModel

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
