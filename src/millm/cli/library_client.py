"""The library on this disk, without a server: the same questions as `library_remote.py` asks one over HTTP.

What downloads or deletes holds the home, so that no server starts meanwhile; what only looks does not.

The library of a running server, over HTTP: the same questions as `library_here.py` answers from the disk.

Which library a command is about: that of a running server, or what is on this disk where no server runs.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec

from millm.cli.http_client import RemoteServer, connect
from millm.database import Database
from millm.demo import bundle
from millm.engine.messages import KV_CACHE_MEMORY_SHARE
from millm.errors import JobNotFound, ModelNotFound, NotFound, SaeNotFound
from millm.hardware import free_memory
from millm.hub.downloads import Downloads
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.home import Home
from millm.hub.jobs import ACTIVE_STATES, ArtifactKind, DownloadJob, DownloadPreview, DownloadSpec
from millm.hub.library import Library
from millm.hub.memory_estimate import Estimate, estimate
from millm.settings import Settings
from millm.status import ModelSpec

T = TypeVar("T")


class LocalLibrary:
    interrupt_hint = "what is finished stays; `millm pull {name}` goes on with it"
    """What Ctrl+C leaves behind."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = Home(settings.home_folder)
        self._home.create()
        self._database = Database(self._home.database)
        builtin = bundle.models(self._home.folder), bundle.saes()
        self._library = Library(self._home, self._database, *builtin, trusted=settings.trust_remote_code)

    def models(self) -> Sequence[ModelEntry]:
        return self._library.models()

    def saes(self) -> Sequence[SaeEntry]:
        return self._library.saes()

    def model(self, id: str) -> ModelEntry:
        return self._library.model(id)

    def sae(self, id: str) -> SaeEntry:
        return self._library.sae(id)

    def delete(self, entry: ModelEntry | SaeEntry) -> DeletionResult:
        with self._home.lock():
            if isinstance(entry, ModelEntry):
                return self._library.delete_model(entry.id)
            return self._library.delete_sae(entry.id)

    def add(self, folder: Path, name: str | None, *, is_sae: bool) -> ModelEntry | SaeEntry:
        """A link to a folder of the user's; a server on this home sees it at once."""
        add = self._library.import_sae if is_sae else self._library.import_model
        return add(folder, name)

    def preview(self, spec: DownloadSpec) -> DownloadPreview:
        async def look(downloads: Downloads) -> DownloadPreview:
            return await downloads.preview(spec)

        with self._home.lock():  # a server's jobs would be taken for those of one that has ended
            return self._run_with_downloads(look)

    def pull(self, spec: DownloadSpec, on_change: Callable[[DownloadJob], None]) -> DownloadJob:
        """Until it ends; Ctrl+C ends it."""

        async def fetch(downloads: Downloads) -> DownloadJob:
            job = await downloads.start(spec)
            on_change(job)
            return await downloads.wait(job.id)

        with self._home.lock():
            return self._run_with_downloads(fetch, on_change)

    def cancel(self, spec: DownloadSpec) -> DownloadJob:
        raise JobNotFound(f"{spec.name} is not being downloaded: no server runs that would")

    def estimate(self, model: ModelSpec, saes: Sequence[str] = ()) -> Estimate:
        """As a server with these settings would tell it that had nothing loaded."""
        located, device = self._library.locate_model(model.id), _resolve_device(model.device or self._settings.device)
        return estimate(
            located.folder,
            name=located.name,
            device=device,
            quantization=model.quantization or self._settings.quantization,
            dtype=model.dtype or self._settings.dtype,
            context=model.context,
            slots=model.slots or self._settings.slots,
            saes=[self._library.sae(sae) for sae in saes],
            free=free_memory(device),
            kv_share=KV_CACHE_MEMORY_SHARE["cpu" if device == "cpu" else "cuda"],
            cpu_int8=self._settings.cpu_int8 == "auto",
        )

    def _run_with_downloads(
        self,
        action: Callable[[Downloads], Coroutine[None, None, T]],
        on_change: Callable[[DownloadJob], None] = lambda _: None,
    ) -> T:
        async def done() -> T:
            downloads = Downloads(self._database, self._settings, on_change)
            try:
                return await action(downloads)
            finally:
                await downloads.close()

        return asyncio.run(done())


def _resolve_device(device: str) -> str:
    """What `auto` stands for, as far as that can be told without torch: a GPU where a driver answers."""
    if device == "auto":
        return "cpu" if free_memory("cuda:0") is None else "cuda:0"
    return "cuda:0" if device == "cuda" else device


POLL_SECONDS = 0.25
"""How often a job is looked at."""
_ENDPOINTS: dict[ArtifactKind, str] = {"model": "/api/models", "sae": "/api/saes"}


class _ModelList(msgspec.Struct, frozen=True):
    models: tuple[ModelEntry, ...]


class _SaeList(msgspec.Struct, frozen=True):
    saes: tuple[SaeEntry, ...]


class _JobList(msgspec.Struct, frozen=True):
    jobs: tuple[DownloadJob, ...]


class RemoteLibrary:
    interrupt_hint = (
        "the server goes on downloading: `millm pull {name}` shows it, `millm pull {name} --cancel` ends it"
    )
    """What Ctrl+C leaves behind."""

    def __init__(self, remote: RemoteServer) -> None:
        self._remote = remote

    def models(self) -> Sequence[ModelEntry]:
        return self._remote.request("GET", "/api/models", _ModelList).models

    def saes(self) -> Sequence[SaeEntry]:
        return self._remote.request("GET", "/api/saes", _SaeList).saes

    def model(self, id: str) -> ModelEntry:
        return self._remote.request("GET", entry_path("model", id), ModelEntry)

    def sae(self, id: str) -> SaeEntry:
        return self._remote.request("GET", entry_path("sae", id), SaeEntry)

    def delete(self, entry: ModelEntry | SaeEntry) -> DeletionResult:
        kind: ArtifactKind = "model" if isinstance(entry, ModelEntry) else "sae"
        return self._remote.request("DELETE", entry_path(kind, entry.id), DeletionResult)

    def preview(self, spec: DownloadSpec) -> DownloadPreview:
        return self._remote.request("POST", f"{_ENDPOINTS[spec.kind]}/preview", DownloadPreview, _download_body(spec))

    def pull(self, spec: DownloadSpec, on_change: Callable[[DownloadJob], None]) -> DownloadJob:
        """Until it ends, `on_change` at each look at it. Stopping to look does not stop the download."""
        job = self._remote.request("POST", _ENDPOINTS[spec.kind], DownloadJob, _download_body(spec))
        on_change(job)
        while job.state in ACTIVE_STATES:
            time.sleep(POLL_SECONDS)
            job = self._remote.request("GET", f"/api/jobs/{job.id}", DownloadJob)
            on_change(job)
        return job

    def cancel(self, spec: DownloadSpec) -> DownloadJob:
        """Raises JobNotFound when it is not being downloaded."""
        jobs = self._remote.request("GET", "/api/jobs", _JobList).jobs
        found = next((job for job in jobs if job.asked == spec and job.state in ACTIVE_STATES), None)
        if found is None:
            raise JobNotFound(f"{spec.name} is not being downloaded")
        return self._remote.request("POST", f"/api/jobs/{found.id}/cancel", DownloadJob, {})

    def estimate(self, model: ModelSpec, saes: Sequence[str] = ()) -> Estimate:
        body = {**msgspec.to_builtins(model), "saes": list(saes)}
        return self._remote.request("POST", "/api/models/estimate", Estimate, body)


def entry_path(kind: ArtifactKind, id: str) -> str:
    """Where an entry is."""
    return f"{_ENDPOINTS[kind]}/{quote(id, safe='/@')}"


def _download_body(spec: DownloadSpec) -> dict[str, str]:
    whole = f"{spec.repository}/{spec.path}" if spec.path else spec.repository
    return {"id": whole, "revision": spec.revision}


LibraryClient = RemoteLibrary | LocalLibrary


def open_library(url: str | None, api_key: str | None) -> LibraryClient:
    """The server at `url` if one is named; else the one at the usual address, if it answers; else this disk."""
    remote = connect(url, api_key)
    return RemoteLibrary(remote) if url or remote.is_running() else LocalLibrary(Settings.load())


def find_entry(library: LibraryClient, id: str) -> ModelEntry | SaeEntry:
    """Raises NotFound when it is neither a model nor an SAE."""
    try:
        return library.model(id)
    except ModelNotFound:
        pass
    try:
        return library.sae(id)
    except SaeNotFound as error:
        raise NotFound(
            f"neither a model nor an SAE {id!r} is in the library; `millm list` and `millm list --saes` show what is"
        ) from error
