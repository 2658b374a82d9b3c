"""The library of a running server, over HTTP: the same questions as `library_here.py` answers from the disk."""

import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

import msgspec

from millm.cli.remote import RemoteServer
from millm.errors import JobNotFound
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.jobs import ACTIVE_STATES, ArtifactKind, DownloadJob, DownloadPreview, DownloadSpec
from millm.hub.memory_estimate import Estimate
from millm.status import ModelSpec

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
