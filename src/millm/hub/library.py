"""The library: models and SAEs on this disk, under public ids; the one door through which an id becomes a folder.

What is loaded or attached it does not know: whoever deletes has asked.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from millm.errors import Conflict, InvalidModel, InvalidSae, ModelNotFound, SaeNotFound
from millm.hub import copies, delete, links, places
from millm.hub.appraisal import blobs_of, model_entry, sae_entry
from millm.hub.checkpoint import check_checkpoint
from millm.hub.entries import Freed, ModelEntry, SaeEntry
from millm.hub.home import Home
from millm.hub.installed import forget, installed, latest_jobs
from millm.hub.jobs import ACTIVE, Kind
from millm.hub.locate import Located
from millm.hub.places import Place
from millm.hub.tree import total
from millm.storage import Database

Entry = TypeVar("Entry", ModelEntry, SaeEntry)

_NAMED = 12
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
        self._deleting = threading.Lock()

    def models(self) -> list[ModelEntry]:
        """By id."""
        return self._model_entries(self._models())

    def saes(self) -> list[SaeEntry]:
        """By id."""
        return self._sae_entries(self._saes())

    def model(self, id: str) -> ModelEntry:
        """By any of its names: `owner/name`, `owner/name@revision`. Raises ModelNotFound."""
        found = self._models()
        place = _find(found, id, "model", ModelNotFound)
        return next(entry for entry in self._model_entries(found) if entry.id == place.id)

    def sae(self, id: str) -> SaeEntry:
        """Raises SaeNotFound."""
        return self._sae_entries([_find(self._saes(), id, "SAE", SaeNotFound)])[0]

    def locate_model(self, id: str) -> Located:
        """Raises ModelNotFound, InvalidModel where it is not whole, or RemoteCodeRefused."""
        place = _find(self._models(), id, "model", ModelNotFound)
        entry = self._model_entries([place])[0]
        _check_whole(entry, InvalidModel)
        is_trusted = entry.needs_remote_code and _commit(place) in self._trusted
        check_checkpoint(place.folder, is_trusted=is_trusted)
        return Located(place.id, place.folder, is_trusted)

    def locate_sae(self, id: str) -> Located:
        """The copy of one that had to be converted. Raises SaeNotFound, or InvalidSae where it is not whole."""
        place = _find(self._saes(), id, "SAE", SaeNotFound)
        _check_whole(self._sae_entries([place])[0], InvalidSae)
        return Located(place.id, copies.readable(place, self._home))

    def delete_model(self, id: str) -> Freed:
        """Raises ModelNotFound, or Conflict for what ships with miLLM or is being downloaded."""
        with self._deleting:
            place = _find(self._models(), id, "model", ModelNotFound)
            self._check_removable(place, "model")
            freed = delete.remove_revision(place.revision) if place.revision else delete.remove_link(place.folder)
        return Freed(id=place.id, bytes=freed, kept=max(total(place.files) - freed, 0))

    def delete_sae(self, id: str) -> Freed:
        """With miLLM's own copy of it. Raises SaeNotFound, or Conflict as `delete_model`."""
        with self._deleting:
            place = _find(self._saes(), id, "SAE", SaeNotFound)
            self._check_removable(place, "sae")
            ours = copies.remove(place, self._home)
            paths = [file.path for file in place.files.values()]
            own = delete.remove_files(place.revision, paths) if place.revision else delete.remove_link(place.folder)
        return Freed(id=place.id, bytes=ours + own, kept=max(total(place.files) - own, 0))

    def import_model(self, folder: Path, name: str | None = None) -> ModelEntry:
        """A link to a folder of this machine; for the terminal only.

        Raises InvalidRequest (the name), Conflict (it is taken) or InvalidModel (no whole model is there).
        """
        place = places.imported_model(self._link(self._home.models, folder, name, self._models()))
        return self._unless_broken(place, self._model_entries([place])[0], InvalidModel)

    def import_sae(self, folder: Path, name: str | None = None) -> SaeEntry:
        """As `import_model`, with InvalidSae."""
        place = places.imported_sae(self._link(self._home.sae_folders, folder, name, self._saes()))
        if not place.problem and place.layout is None:
            place.folder.unlink()
            raise InvalidSae("no SAE found in this folder: neither cfg.json and sae_weights.safetensors nor params.npz")
        return self._unless_broken(place, self._sae_entries([place])[0], InvalidSae)

    def _models(self) -> list[Place]:
        return list(places.models(self._home.models, self._builtin_models, self._asked()))

    def _saes(self) -> list[Place]:
        return list(places.saes(self._home.sae_folders, self._builtin_saes, self._asked()))

    def _asked(self) -> dict[tuple[str, str], str]:
        jobs = latest_jobs(self._database)
        return {(repository, commit): job.asked.revision for (_, repository, commit, _), job in jobs.items()}

    def _model_entries(self, found: list[Place]) -> list[ModelEntry]:
        blobs, rows, jobs = blobs_of(found), installed(self._database), latest_jobs(self._database)
        return _by_id(model_entry(place, blobs, rows, jobs) for place in found)

    def _sae_entries(self, found: list[Place]) -> list[SaeEntry]:
        rows, jobs = installed(self._database), latest_jobs(self._database)
        return _by_id(sae_entry(place, rows, jobs) for place in found)

    def _check_removable(self, place: Place, kind: Kind) -> None:
        """Then its row goes: from here on it counts as not installed."""
        if place.origin == "builtin":
            raise Conflict(f"{place.id} ships with miLLM and cannot be deleted")
        if place.revision is None:
            return
        for job in latest_jobs(self._database).values():
            if job.state in ACTIVE and job.asked.repository == place.revision.repository:
                raise Conflict(f"{job.name} is being downloaded; cancel that first")
        forget(self._database, (kind, place.revision.repository, place.revision.commit, place.inside))

    def _link(self, shelf: Path, folder: Path, name: str | None, found: list[Place]) -> Path:
        chosen = folder.resolve().name if name is None else name
        links.check_name(chosen)
        if any(chosen in place.names for place in found):
            raise Conflict(f"the library has a {chosen!r} already; give another name with --name")
        return links.add(shelf, chosen, folder)

    def _unless_broken(self, place: Place, entry: Entry, refusal: type[InvalidModel] | type[InvalidSae]) -> Entry:
        if entry.state != "whole":
            place.folder.unlink()
        _check_whole(entry, refusal)
        return entry


def _find(found: list[Place], id: str, what: str, refusal: Callable[[str], Exception]) -> Place:
    for place in found:
        if id == place.id or id in place.names:
            return place
    ids = sorted(place.id for place in found)
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    there = f"there are {', '.join(ids[:_NAMED])}{more}" if ids else "it is empty"
    raise refusal(f"the library has no {what} {id[:200]!r}; {there}. `millm pull` downloads one")


def _check_whole(entry: ModelEntry | SaeEntry, refusal: type[InvalidModel] | type[InvalidSae]) -> None:
    if entry.state != "whole":
        raise refusal(f"{entry.id} is {entry.state}: {entry.problem}")


def _by_id(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.id)


def _commit(place: Place) -> str | None:
    """As the operator names it."""
    return f"{place.revision.repository}@{place.revision.commit}" if place.revision else None
