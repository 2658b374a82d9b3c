"""The library of a running server, or of this disk where no server runs.

Offline commands do not go through the API over `httpx.ASGITransport`: importing and building the app takes 0.8 s of
processor time, more than all else that `millm list` does, and the API does not lock the home against a second process.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from millm.cli.http_client import POLL_SECONDS, RemoteServer, connect_if_running
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
OnJobChange = Callable[[DownloadJob], None]


class LocalLibrary(Library):
    """Downloads and deletions lock the home, so that no server starts meanwhile; reading does not."""

    interrupt_hint = "what is finished stays; `millm pull {name}` goes on with it"
    """Printed after Ctrl+C during `pull`."""

    def __init__(self, settings: Settings) -> None:
        home = Home(settings.home_folder)
        home.create()
        builtin = bundle.models(home.folder), bundle.saes()
        super().__init__(home, Database(home.database), *builtin, trusted=settings.trust_remote_code)
        self._settings = settings

    def delete(self, entry: ModelEntry | SaeEntry) -> DeletionResult:
        with self._home.lock():
            return self.delete_model(entry.id) if isinstance(entry, ModelEntry) else self.delete_sae(entry.id)

    def preview(self, spec: DownloadSpec) -> DownloadPreview:
        return self._run_with_downloads(lambda downloads: downloads.preview(spec))

    def pull(self, spec: DownloadSpec, on_change: OnJobChange) -> DownloadJob:
        """Blocks until the download ends; Ctrl+C interrupts it."""

        async def fetch(downloads: Downloads) -> DownloadJob:
            job = await downloads.start(spec)
            on_change(job)
            return await downloads.wait(job.id)

        return self._run_with_downloads(fetch, on_change)

    def cancel(self, spec: DownloadSpec) -> DownloadJob:
        raise JobNotFound(f"{spec.name} is not being downloaded: no server runs")

    def estimate(self, model: ModelSpec, saes: Sequence[str] = ()) -> Estimate:
        """The estimate of a server with these settings and nothing loaded."""
        settings, located = self._settings, self.locate_model(model.id)
        device = _resolve_device(model.device or settings.device)
        return estimate(
            located.folder,
            name=located.name,
            device=device,
            quantization=model.quantization or settings.quantization,
            dtype=model.dtype or settings.dtype,
            context=model.context,
            slots=model.slots or settings.slots,
            saes=[self.sae(sae) for sae in saes],
            free=free_memory(device),
            kv_share=KV_CACHE_MEMORY_SHARE["cpu" if device == "cpu" else "cuda"],
            cpu_int8=settings.cpu_int8 == "auto",
        )

    def _run_with_downloads(
        self, action: Callable[[Downloads], Coroutine[None, None, T]], on_change: OnJobChange = lambda _: None
    ) -> T:
        """Lock the home meanwhile: a server's running jobs would be read as interrupted ones."""

        async def run() -> T:
            downloads = Downloads(self._database, self._settings, on_change)
            try:
                return await action(downloads)
            finally:
                await downloads.close()

        with self._home.lock():
            return asyncio.run(run())


def _resolve_device(device: str) -> str:
    """Resolve `auto` without torch: a GPU if a driver answers."""
    if device == "auto":
        return "cpu" if free_memory("cuda:0") is None else "cuda:0"
    return "cuda:0" if device == "cuda" else device


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

    def __init__(self, remote: RemoteServer) -> None:
        self._remote = remote

    def models(self) -> Sequence[ModelEntry]:
        return self._remote.request("GET", "/api/models", _ModelList).models

    def saes(self) -> Sequence[SaeEntry]:
        return self._remote.request("GET", "/api/saes", _SaeList).saes

    def model(self, id: str) -> ModelEntry:
        return self._remote.request("GET", _entry_path("model", id), ModelEntry)

    def sae(self, id: str) -> SaeEntry:
        return self._remote.request("GET", _entry_path("sae", id), SaeEntry)

    def delete(self, entry: ModelEntry | SaeEntry) -> DeletionResult:
        kind: ArtifactKind = "model" if isinstance(entry, ModelEntry) else "sae"
        return self._remote.request("DELETE", _entry_path(kind, entry.id), DeletionResult)

    def preview(self, spec: DownloadSpec) -> DownloadPreview:
        return self._remote.request("POST", f"{_ENDPOINTS[spec.kind]}/preview", DownloadPreview, _download_body(spec))

    def pull(self, spec: DownloadSpec, on_change: OnJobChange) -> DownloadJob:
        """Blocks until the download ends; after Ctrl+C the server continues it."""
        job = self._remote.request("POST", _ENDPOINTS[spec.kind], DownloadJob, _download_body(spec))
        on_change(job)
        while job.state in ACTIVE_STATES:
            time.sleep(POLL_SECONDS)
            job = self._remote.request("GET", f"/api/jobs/{job.id}", DownloadJob)
            on_change(job)
        return job

    def cancel(self, spec: DownloadSpec) -> DownloadJob:
        """Raises JobNotFound if no download of `spec` is running."""
        jobs = self._remote.request("GET", "/api/jobs", _JobList).jobs
        job = next((job for job in jobs if job.asked == spec and job.state in ACTIVE_STATES), None)
        if job is None:
            raise JobNotFound(f"{spec.name} is not being downloaded")
        return self._remote.request("POST", f"/api/jobs/{job.id}/cancel", DownloadJob, {})

    def estimate(self, model: ModelSpec, saes: Sequence[str] = ()) -> Estimate:
        body = {**msgspec.to_builtins(model), "saes": list(saes)}
        return self._remote.request("POST", "/api/models/estimate", Estimate, body)


def _entry_path(kind: ArtifactKind, id: str) -> str:
    return f"{_ENDPOINTS[kind]}/{quote(id, safe='/@')}"


def _download_body(spec: DownloadSpec) -> dict[str, str]:
    id = f"{spec.repository}/{spec.path}" if spec.path else spec.repository
    return {"id": id, "revision": spec.revision}


LibraryClient = RemoteLibrary | LocalLibrary
"""Both have the same methods; mypy checks each use against the two."""


def open_library(url: str | None, api_key: str | None) -> LibraryClient:
    remote = connect_if_running(url, api_key)
    return RemoteLibrary(remote) if remote else LocalLibrary(Settings.load())


def find_entry(library: LibraryClient, id: str) -> ModelEntry | SaeEntry:
    """Raises NotFound if `id` is neither a model nor an SAE."""
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
