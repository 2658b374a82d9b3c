"""A stand-in hub, a cache and a database of one test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from millm.database import Database
from millm.hub.download_worker import matches_hash
from millm.hub.downloads import Downloads
from millm.hub.hf_cache import repo_folder_name
from millm.hub.jobs import DownloadJob, InstallRecord
from millm.settings import Settings
from tests.fixtures.fakehub import FakeHub

Result = TypeVar("Result")
PATIENCE = 25
"""Seconds."""


@dataclass
class Site:
    hub: FakeHub
    folder: Path
    reported: list[DownloadJob] = field(default_factory=list)
    """The jobs passed to `on_change`."""

    @property
    def cache(self) -> Path:
        return self.folder / "cache" / "hub"

    @property
    def database(self) -> Path:
        return self.folder / "millm.sqlite"

    def write(self, path: str, size: int = 10, byte: bytes = b"x") -> None:
        """Write the file `owner/name/path` of the hub."""
        file = self.hub.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(byte * size)

    def write_model(self, repository: str, *sizes: int) -> None:
        """Weights of these sizes, each different, and a configuration."""
        self.write(f"{repository}/config.json")
        for number, size in enumerate(sizes):
            self.write(f"{repository}/model-{number:05}.safetensors", size, bytes([number + 1]))

    def run(self, story: Callable[[Downloads], Coroutine[Any, Any, Result]], **settings: Any) -> Result:
        """Run `story` in the lifetime of a `Downloads`."""

        async def told() -> Result:
            async with self.downloads(**settings) as downloads:
                return await asyncio.wait_for(story(downloads), PATIENCE)

        return asyncio.run(told())

    @asynccontextmanager
    async def downloads(self, **settings: Any) -> AsyncIterator[Downloads]:
        database = Database(self.database)
        values = {"download_backoff": 0.005, "download_reserve_bytes": 0, **settings}
        downloads = Downloads(database, Settings.load(**values), self.reported.append)
        try:
            yield downloads
        finally:
            await downloads.close()
            database.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        database = Database(self.database)
        try:
            return database.read(query)
        finally:
            database.close()

    def installed(self) -> dict[str, InstallRecord]:
        """Install records by name; asserts that the files are those of the hub."""
        rows = self.rows("SELECT name, body FROM installed")
        records = {name: msgspec.json.decode(body, type=InstallRecord) for name, body in rows}
        for record in records.values():
            snapshot = self.cache / repo_folder_name(record.repository) / "snapshots" / record.commit
            for file in record.files:
                assert matches_hash(snapshot / file.path, file.size, file.hash), file.path
                assert (snapshot / file.path).read_bytes() == (
                    self.hub.root / record.repository / file.path
                ).read_bytes()
        return records

    def orphans(self) -> list[str]:
        """Files that a stopped download must not leave."""
        blobs = self.cache.glob("models--*/blobs/*")
        return [path.name for path in blobs if path.name.endswith(".incomplete") or path.name.startswith("tmp_")]

    def contents(self, repository: str) -> dict[str, bytes]:
        """Path with commit → content of the files in the snapshots."""
        snapshots = self.cache / repo_folder_name(repository) / "snapshots"
        return {
            path.relative_to(snapshots).as_posix(): path.read_bytes() for path in snapshots.rglob("*") if path.is_file()
        }
