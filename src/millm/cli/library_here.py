"""The library on this disk, without a server: the same questions as `library_remote.py` asks one over HTTP.

What downloads or deletes holds the home, so that no server starts meanwhile; what only looks does not.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

from millm.database import Database
from millm.demo import bundle
from millm.engine.messages import KV_CACHE_MEMORY_SHARE
from millm.errors import JobNotFound
from millm.hardware import free_memory
from millm.hub.downloads import Downloads
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.home import Home
from millm.hub.jobs import DownloadJob, DownloadPreview, DownloadSpec
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
