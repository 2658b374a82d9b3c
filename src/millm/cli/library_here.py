"""The library on this disk, without a server: the same questions as `library_remote.py` asks one over HTTP.

What downloads or deletes holds the home, so that no server starts meanwhile; what only looks does not.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

from millm.demo import bundle
from millm.desired import WantedModel
from millm.engine.messages import KV_SHARE
from millm.errors import JobNotFound
from millm.hardware import free_memory
from millm.hub.downloads import Downloads
from millm.hub.entries import Freed, ModelEntry, SaeEntry
from millm.hub.estimate import Estimate, estimate
from millm.hub.home import Home
from millm.hub.jobs import Asked, Job, Preview
from millm.hub.library import Library
from millm.settings import Settings
from millm.storage import Database

Told = TypeVar("Told")


class LibraryHere:
    on_interrupt = "what is finished stays; `millm pull {name}` goes on with it"
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

    def delete(self, entry: ModelEntry | SaeEntry) -> Freed:
        with self._home.locked():
            if isinstance(entry, ModelEntry):
                return self._library.delete_model(entry.id)
            return self._library.delete_sae(entry.id)

    def add(self, folder: Path, name: str | None, *, is_sae: bool) -> ModelEntry | SaeEntry:
        """A link to a folder of the user's; a server on this home sees it at once."""
        add = self._library.import_sae if is_sae else self._library.import_model
        return add(folder, name)

    def preview(self, asked: Asked) -> Preview:
        async def look(downloads: Downloads) -> Preview:
            return await downloads.preview(asked)

        with self._home.locked():  # a server's jobs would be taken for those of one that has ended
            return self._with_downloads(look)

    def pull(self, asked: Asked, on_change: Callable[[Job], None]) -> Job:
        """Until it ends; Ctrl+C ends it."""

        async def fetch(downloads: Downloads) -> Job:
            job = await downloads.start(asked)
            on_change(job)
            return await downloads.wait(job.id)

        with self._home.locked():
            return self._with_downloads(fetch, on_change)

    def cancel(self, asked: Asked) -> Job:
        raise JobNotFound(f"{asked.name} is not being downloaded: no server runs that would")

    def estimate(self, wanted: WantedModel, saes: Sequence[str] = ()) -> Estimate:
        """As a server with these settings would tell it that had nothing loaded."""
        located, device = self._library.locate_model(wanted.id), _device(wanted.device or self._settings.device)
        return estimate(
            located.folder,
            name=located.name,
            device=device,
            quantization=wanted.quantization or self._settings.quantization,
            dtype=wanted.dtype or self._settings.dtype,
            context=wanted.context,
            slots=wanted.slots or self._settings.slots,
            saes=[self._library.sae(sae) for sae in saes],
            free=free_memory(device),
            kv_share=KV_SHARE["cpu" if device == "cpu" else "cuda"],
            cpu_int8=self._settings.cpu_int8 == "auto",
        )

    def _with_downloads(
        self,
        do: Callable[[Downloads], Coroutine[None, None, Told]],
        on_change: Callable[[Job], None] = lambda _: None,
    ) -> Told:
        async def done() -> Told:
            downloads = Downloads(self._database, self._settings, on_change)
            try:
                return await do(downloads)
            finally:
                await downloads.close()

        return asyncio.run(done())


def _device(asked: str) -> str:
    """What `auto` stands for, as far as that can be told without torch: a GPU where a driver answers."""
    if asked == "auto":
        return "cpu" if free_memory("cuda:0") is None else "cuda:0"
    return "cuda:0" if asked == "cuda" else asked
