"""The library: models and SAEs on this disk, under public ids; the one door through which an id becomes a folder.

What is loaded or attached it does not know: whoever deletes has asked.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from millm.database import Database
from millm.errors import Conflict, InvalidModel, InvalidSae, ModelNotFound, SaeNotFound
from millm.hub import copies, delete, links, places
from millm.hub.appraisal import build_model_entry, build_sae_entry, count_blob_uses
from millm.hub.checkpoint import check_model_folder
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.home import Home
from millm.hub.installed import delete_install_record, latest_jobs, load_install_records
from millm.hub.jobs import ACTIVE_STATES, ArtifactKind
from millm.hub.locate import LocalCheckpoint
from millm.hub.places import LibraryLocation
from millm.hub.tree import total_size

Entry = TypeVar("Entry", ModelEntry, SaeEntry)

_MAX_LISTED_IDS = 12
"""Ids that a message lists."""


class Library:
    """Every call looks at the disk anew (some 10 ms for 50 entries). Calls from any thread."""

    def __init__(
        self,
        home: Home,
        database: Database,
        builtin_models: Mapping[str, Path] = {},
        builtin_saes: Mapping[str, Path] = {},
        *,
        trusted: Collection[str] = (),
    ) -> None:
        """`trusted`: commits whose own Python may run, as `owner/name@commit`."""
        self._home = home
        self._database = database
        self._builtin_models = dict(builtin_models)
        self._builtin_saes = dict(builtin_saes)
        self._trusted = frozenset(trusted)
        self._delete_lock = threading.Lock()

    def models(self) -> list[ModelEntry]:
        """By id."""
        return self._model_entries(self._model_locations())

    def saes(self) -> list[SaeEntry]:
        """By id."""
        return self._sae_entries(self._sae_locations())

    def model(self, id: str) -> ModelEntry:
        """By any of its names: `owner/name`, `owner/name@revision`. Raises ModelNotFound."""
        found = self._model_locations()
        place = _find(found, id, "model", ModelNotFound)
        return next(entry for entry in self._model_entries(found) if entry.id == place.id)

    def sae(self, id: str) -> SaeEntry:
        """Raises SaeNotFound."""
        return self._sae_entries([_find(self._sae_locations(), id, "SAE", SaeNotFound)])[0]

    def locate_model(self, id: str) -> LocalCheckpoint:
        """Raises ModelNotFound, InvalidModel where it is not whole, or RemoteCodeRefused."""
        place = _find(self._model_locations(), id, "model", ModelNotFound)
        entry = self._model_entries([place])[0]
        _check_intact(entry, InvalidModel)
        is_trusted = entry.needs_remote_code and _trust_key(place) in self._trusted
        check_model_folder(place.folder, is_trusted=is_trusted)
        return LocalCheckpoint(place.id, place.folder, is_trusted)

    def locate_sae(self, id: str) -> LocalCheckpoint:
        """The copy of one that had to be converted. Raises SaeNotFound, or InvalidSae where it is not whole."""
        place = _find(self._sae_locations(), id, "SAE", SaeNotFound)
        _check_intact(self._sae_entries([place])[0], InvalidSae)
        return LocalCheckpoint(place.id, copies.readable_sae_folder(place, self._home))

    def delete_model(self, id: str) -> DeletionResult:
        """Raises ModelNotFound, or Conflict for what ships with miLLM or is being downloaded."""
        with self._delete_lock:
            place = _find(self._model_locations(), id, "model", ModelNotFound)
            self._uninstall(place, "model")
            freed = delete.remove_revision(place.revision) if place.revision else delete.remove_link(place.folder)
        return DeletionResult(id=place.id, bytes=freed, kept=max(total_size(place.files) - freed, 0))

    def delete_sae(self, id: str) -> DeletionResult:
        """With miLLM's own copy of it. Raises SaeNotFound, or Conflict as `delete_model`."""
        with self._delete_lock:
            place = _find(self._sae_locations(), id, "SAE", SaeNotFound)
            self._uninstall(place, "sae")
            ours = copies.remove_sae_copies(place, self._home)
            paths = [file.path for file in place.files.values()]
            own = delete.remove_files(place.revision, paths) if place.revision else delete.remove_link(place.folder)
        return DeletionResult(id=place.id, bytes=ours + own, kept=max(total_size(place.files) - own, 0))

    def import_model(self, folder: Path, name: str | None = None) -> ModelEntry:
        """A link to a folder of this machine; for the terminal only.

        Raises InvalidRequest (the name), Conflict (it is taken) or InvalidModel (no whole model is there).
        """
        place = places.read_model_link(self._add_link(self._home.model_links, folder, name, self._model_locations()))
        return self._reject_damaged_import(place, self._model_entries([place])[0], InvalidModel)

    def import_sae(self, folder: Path, name: str | None = None) -> SaeEntry:
        """As `import_model`, with InvalidSae."""
        place = places.read_sae_link(self._add_link(self._home.sae_links, folder, name, self._sae_locations()))
        if not place.problem and place.layout is None:
            place.folder.unlink()
            raise InvalidSae("no SAE found in this folder: neither cfg.json and sae_weights.safetensors nor params.npz")
        return self._reject_damaged_import(place, self._sae_entries([place])[0], InvalidSae)

    def _model_locations(self) -> list[LibraryLocation]:
        return list(places.scan_models(self._home.model_links, self._builtin_models, self._requested_branches()))

    def _sae_locations(self) -> list[LibraryLocation]:
        return list(places.scan_saes(self._home.sae_links, self._builtin_saes, self._requested_branches()))

    def _requested_branches(self) -> dict[tuple[str, str], str]:
        jobs = latest_jobs(self._database)
        return {(repository, commit): job.asked.revision for (_, repository, commit, _), job in jobs.items()}

    def _model_entries(self, locations: list[LibraryLocation]) -> list[ModelEntry]:
        blobs, rows, jobs = (
            count_blob_uses(locations),
            load_install_records(self._database),
            latest_jobs(self._database),
        )
        return _by_id(build_model_entry(place, blobs, rows, jobs) for place in locations)

    def _sae_entries(self, locations: list[LibraryLocation]) -> list[SaeEntry]:
        rows, jobs = load_install_records(self._database), latest_jobs(self._database)
        return _by_id(build_sae_entry(place, rows, jobs) for place in locations)

    def _uninstall(self, location: LibraryLocation, kind: ArtifactKind) -> None:
        """Then its row goes: from here on it counts as not installed."""
        if location.origin == "builtin":
            raise Conflict(f"{location.id} ships with miLLM and cannot be deleted")
        if location.revision is None:
            return
        for job in latest_jobs(self._database).values():
            if job.state in ACTIVE_STATES and job.asked.repository == location.revision.repository:
                raise Conflict(f"{job.name} is being downloaded; cancel that first")
        delete_install_record(
            self._database, (kind, location.revision.repository, location.revision.commit, location.subpath)
        )

    def _add_link(self, parent: Path, folder: Path, name: str | None, existing: list[LibraryLocation]) -> Path:
        chosen = folder.resolve().name if name is None else name
        links.check_library_name(chosen)
        if any(chosen in place.names for place in existing):
            raise Conflict(f"the library has a {chosen!r} already; give another name with --name")
        return links.add_link(parent, chosen, folder)

    def _reject_damaged_import(
        self, location: LibraryLocation, entry: Entry, error_type: type[InvalidModel] | type[InvalidSae]
    ) -> Entry:
        if entry.state != "whole":
            location.folder.unlink()
        _check_intact(entry, error_type)
        return entry


def _find(
    locations: list[LibraryLocation], id: str, label: str, error_type: Callable[[str], Exception]
) -> LibraryLocation:
    for place in locations:
        if id == place.id or id in place.names:
            return place
    ids = sorted(place.id for place in locations)
    more = f" and {len(ids) - _MAX_LISTED_IDS} more" if len(ids) > _MAX_LISTED_IDS else ""
    there = f"there are {', '.join(ids[:_MAX_LISTED_IDS])}{more}" if ids else "it is empty"
    raise error_type(f"the library has no {label} {id[:200]!r}; {there}. `millm pull` downloads one")


def _check_intact(entry: ModelEntry | SaeEntry, error_type: type[InvalidModel] | type[InvalidSae]) -> None:
    if entry.state != "whole":
        raise error_type(f"{entry.id} is {entry.state}: {entry.problem}")


def _by_id(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.id)


def _trust_key(location: LibraryLocation) -> str | None:
    """As the operator names it."""
    return f"{location.revision.repository}@{location.revision.commit}" if location.revision else None
