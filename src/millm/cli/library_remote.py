"""The library of a running server, over HTTP: the same questions as `library_here.py` answers from the disk."""

import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

import msgspec

from millm.cli.remote import Remote
from millm.desired import WantedModel
from millm.errors import JobNotFound
from millm.hub.entries import Freed, ModelEntry, SaeEntry
from millm.hub.estimate import Estimate
from millm.hub.jobs import ACTIVE, Asked, Job, Kind, Preview

TICK_SECONDS = 0.25
"""How often a job is looked at."""

_ROOMS: dict[Kind, str] = {"model": "/api/models", "sae": "/api/saes"}


class _Models(msgspec.Struct, frozen=True):
    models: tuple[ModelEntry, ...]


class _Saes(msgspec.Struct, frozen=True):
    saes: tuple[SaeEntry, ...]


class _Jobs(msgspec.Struct, frozen=True):
    jobs: tuple[Job, ...]


class RemoteLibrary:
    on_interrupt = "the server goes on downloading: `millm pull {name}` shows it, `millm pull {name} --cancel` ends it"
    """What Ctrl+C leaves behind."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def models(self) -> Sequence[ModelEntry]:
        return self._remote.ask("GET", "/api/models", _Models).models

    def saes(self) -> Sequence[SaeEntry]:
        return self._remote.ask("GET", "/api/saes", _Saes).saes

    def model(self, id: str) -> ModelEntry:
        return self._remote.ask("GET", address("model", id), ModelEntry)

    def sae(self, id: str) -> SaeEntry:
        return self._remote.ask("GET", address("sae", id), SaeEntry)

    def delete(self, entry: ModelEntry | SaeEntry) -> Freed:
        kind: Kind = "model" if isinstance(entry, ModelEntry) else "sae"
        return self._remote.ask("DELETE", address(kind, entry.id), Freed)

    def preview(self, asked: Asked) -> Preview:
        return self._remote.ask("POST", f"{_ROOMS[asked.kind]}/preview", Preview, _body(asked))

    def pull(self, asked: Asked, on_change: Callable[[Job], None]) -> Job:
        """Until it ends, `on_change` at each look at it. Stopping to look does not stop the download."""
        job = self._remote.ask("POST", _ROOMS[asked.kind], Job, _body(asked))
        on_change(job)
        while job.state in ACTIVE:
            time.sleep(TICK_SECONDS)
            job = self._remote.ask("GET", f"/api/jobs/{job.id}", Job)
            on_change(job)
        return job

    def cancel(self, asked: Asked) -> Job:
        """Raises JobNotFound when it is not being downloaded."""
        jobs = self._remote.ask("GET", "/api/jobs", _Jobs).jobs
        found = next((job for job in jobs if job.asked == asked and job.state in ACTIVE), None)
        if found is None:
            raise JobNotFound(f"{asked.name} is not being downloaded")
        return self._remote.ask("POST", f"/api/jobs/{found.id}/cancel", Job, {})

    def estimate(self, wanted: WantedModel, saes: Sequence[str] = ()) -> Estimate:
        body = {**msgspec.to_builtins(wanted), "saes": list(saes)}
        return self._remote.ask("POST", "/api/models/estimate", Estimate, body)


def address(kind: Kind, id: str) -> str:
    """Where an entry is."""
    return f"{_ROOMS[kind]}/{quote(id, safe='/@')}"


def _body(asked: Asked) -> dict[str, str]:
    whole = f"{asked.repository}/{asked.path}" if asked.path else asked.repository
    return {"id": whole, "revision": asked.revision}
