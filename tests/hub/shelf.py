"""A library over a cache of its own, with access to both."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from millm.database import Database
from millm.hub.home import Home
from millm.hub.jobs import DownloadJob, DownloadSpec, JobState
from millm.hub.library import Library


@dataclass
class Shelf:
    library: Library
    cache: Path
    home: Home
    database: Database
    model: dict[str, bytes]
    sae: dict[str, bytes]

    def install(self, kind: str, repository: str, commit: str, path: str, sizes: dict[str, int]) -> None:
        files = [{"path": name, "size": size, "hash": "0" * 64} for name, size in sizes.items()]
        body = msgspec.json.encode(
            {"repository": repository, "revision": "main", "commit": commit, "path": path, "files": files}
        ).decode()
        name = f"{repository}/{path}" if path else repository
        self.database.write(lambda on: on.execute("INSERT INTO installed VALUES (?, ?, ?)", (kind, name, body)))

    def job(self, spec: DownloadSpec, commit: str, state: JobState, created: float = 1.0) -> None:
        job = DownloadJob(
            id=f"{state}{created}", asked=spec, name=spec.name, state=state, commit=commit, created=created, updated=1
        )
        body = msgspec.json.encode(job).decode()
        self.database.write(lambda on: on.execute("INSERT INTO jobs VALUES (?, ?)", (job.id, body)))

    def model_state(self, id: str) -> tuple[str, str | None]:
        entry = self.library.model(id)
        return entry.state, entry.problem
