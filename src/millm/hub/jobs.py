"""What a download is, for whoever asks: plain values that the API answers, the terminal shows and the disk keeps."""

from typing import Literal

import msgspec

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
