"""The library: models and SAEs on this disk, under public ids; the one door through which an id becomes a folder.

What is loaded or attached it does not know: whoever deletes has asked.

A place on the disk → an entry of the library: what it says of itself, and whether it is all there.

miLLM's own copies of an SAE: of another library's in a layout that is read, and the engine's memory-mapped one.

What this server keeps on disk, and how it gets there: the one home, its database, its library, its downloads.
"""

import hashlib
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from millm.database import Database
from millm.errors import Conflict, InvalidModel, InvalidSae, ModelNotFound, SaeNotFound
from millm.hub import catalog, checkpoint, hf_cache, locate, sae_layout
from millm.hub import home as links
from millm.hub.checkpoint import (
    INTACT,
    IntegrityResult,
    check_installed_sizes,
    check_model_files,
    check_model_folder,
    check_sae_files,
)
from millm.hub.downloads import Downloads
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.home import Home, files_below, total_size
from millm.hub.jobs import (
    ACTIVE_STATES,
    ArtifactKind,
    DownloadJob,
    InstallKey,
    InstallRecord,
    delete_install_record,
    latest_jobs,
    load_install_records,
)
from millm.hub.locate import LibraryLocation, LocalCheckpoint
from millm.hub.sae_conversion import find_converted
from millm.hub.sae_layout import is_native_layout, required_files

Known = TypeVar("Known")
BlobUseCounts = Counter[Path]
"""How many entries use a file."""


def count_blob_uses(locations: Iterable[LibraryLocation]) -> BlobUseCounts:
    return Counter(where for place in locations for where in {file.real_path for file in place.files.values()})


def build_model_entry(
    location: LibraryLocation,
    blob_uses: BlobUseCounts,
    records: Mapping[InstallKey, InstallRecord],
    jobs: Mapping[InstallKey, DownloadJob],
) -> ModelEntry:
    row = _lookup(location, "model", records)
    found = check_model_files(location.files)
    condition = _entry_integrity(
        location, row, _lookup(location, "model", jobs), found if row else _unrecorded_integrity(location, found)
    )
    own = {file.real_path: file.size or 0 for file in location.files.values()}
    return ModelEntry(
        id=location.id,
        origin=location.origin,
        state=condition.state,
        problem=condition.problem,
        is_verified=row is not None and condition.state == "whole",
        commit=location.revision.commit if location.revision else None,
        size=sum(own.values()),
        shared=sum(size for where, size in own.items() if blob_uses[where] > 1),
        last_used=max((file.accessed for file in location.files.values()), default=None) or None,
        **vars(_model_metadata(location)),
    )


def build_sae_entry(
    location: LibraryLocation, records: Mapping[InstallKey, InstallRecord], jobs: Mapping[InstallKey, DownloadJob]
) -> SaeEntry:
    row = _lookup(location, "sae", records)
    found = check_sae_files(location.files, sae_layout.required_files(location.layout))
    condition = _entry_integrity(location, row, _lookup(location, "sae", jobs), found)
    return SaeEntry(
        id=location.id,
        origin=location.origin,
        state=condition.state,
        problem=condition.problem,
        is_verified=row is not None and condition.state == "whole",
        commit=location.revision.commit if location.revision else None,
        size=total_size(location.files),
        neuronpedia=catalog.neuronpedia_link(location.id) if location.revision else None,
        **vars(_sae_metadata(location)),
    )


def _entry_integrity(
    location: LibraryLocation, record: InstallRecord | None, job: DownloadJob | None, files_integrity: IntegrityResult
) -> IntegrityResult:
    """The worst that is known. A verified download counts for more than a job or a leftover beside it."""
    if location.problem:
        return IntegrityResult("damaged", location.problem)
    if record:
        compared = check_installed_sizes(location.files, record.sizes())
        return files_integrity if compared == INTACT else compared
    if files_integrity == INTACT and job and job.state != "installed":
        return IntegrityResult("incomplete", f"its download is {job.state}; resume it, or delete what is here")
    return files_integrity


def _unrecorded_integrity(location: LibraryLocation, files_integrity: IntegrityResult) -> IntegrityResult:
    """A cache that others filled has no rows: a leftover is all that tells of a file that never came."""
    if files_integrity == INTACT and location.revision and location.revision.has_incomplete_file:
        return IntegrityResult("incomplete", "a file of it began to arrive and did not end; download it again")
    return files_integrity


def _lookup(location: LibraryLocation, kind: ArtifactKind, table: Mapping[InstallKey, Known]) -> Known | None:
    """What the database knows of exactly this commit."""
    if location.revision is None:
        return None
    return table.get((kind, location.revision.repository, location.revision.commit, location.subpath))


def _model_metadata(location: LibraryLocation) -> checkpoint.ModelMetadata:
    try:
        return (
            checkpoint.read_model_metadata(location.files)
            if "config.json" in location.files
            else checkpoint.ModelMetadata()
        )
    except InvalidModel:  # its condition says so
        return checkpoint.ModelMetadata()


def _sae_metadata(location: LibraryLocation) -> sae_layout.SaeMetadata:
    """Where its files say nothing, the catalogue of public SAEs may."""
    known = catalog.find_sae(location.id) if location.revision else None
    told = _sae_metadata_from_files(location)
    if known is None:
        return told
    public = sae_layout.SaeMetadata(None, None, known.width, None, known.hook_point, known.layer, known.model)
    return sae_layout.SaeMetadata(
        **{key: vars(public)[key] if value is None else value for key, value in vars(told).items()}
    )


def _sae_metadata_from_files(location: LibraryLocation) -> sae_layout.SaeMetadata:
    path = os.path.realpath(location.folder)  # of a cache's folders the names are in it too
    try:
        return sae_layout.read_sae_metadata(location.layout, location.files, path)
    except (InvalidModel, InvalidSae):  # its condition says so
        return sae_layout.SaeMetadata(format=location.layout)


_SHA256 = re.compile(r"[0-9a-f]{64}")


class _CanonicalHeader(msgspec.Struct):
    sha256: str


def readable_sae_folder(location: LibraryLocation, home: Home) -> Path:
    """The SAE's folder, or that of its converted copy. Raises InvalidSae where none has been made."""
    if is_native_layout(location.layout):
        return location.folder
    copy = find_converted(location.folder, location.id, home)
    if copy is None:
        raise InvalidSae(
            f"{location.id} is in the layout of {location.layout}, which has to be converted first:"
            f" `millm pull {location.id}` does that"
        )
    return copy


def remove_sae_copies(location: LibraryLocation, home: Home) -> int:
    """→ bytes that became free."""
    if location.problem or location.layout is None:
        return 0
    copy = None if is_native_layout(location.layout) else find_converted(location.folder, location.id, home)
    weights = copy / "sae_weights.safetensors" if copy else _weights_path(location)
    freed = _remove_canonical(home.canonical_saes, _weights_hash(weights)) if weights else 0
    return freed + (_remove_folder(copy) if copy else 0)


def _remove_canonical(saes: Path, sha256: str) -> int:
    """The engine's."""
    freed = 0
    for folder in saes.iterdir() if saes.is_dir() else ():
        if _source_hash(folder) == sha256:
            freed += _remove_folder(folder)
    return freed


def _remove_folder(folder: Path) -> int:
    freed = sum(file.size or 0 for file in files_below(folder).values())
    shutil.rmtree(folder)
    return freed


def _source_hash(folder: Path) -> str | None:
    try:
        return msgspec.json.decode((folder / "config.json").read_bytes(), type=_CanonicalHeader).sha256
    except (OSError, msgspec.DecodeError):
        return None


def _weights_path(location: LibraryLocation) -> Path | None:
    file = next((location.files[name] for name in required_files(location.layout)[:1] if name in location.files), None)
    return file.real_path if file and file.size is not None else None


def _weights_hash(weights: Path) -> str:
    """The name of a large file's blob; of another cache's, counted."""
    if _SHA256.fullmatch(weights.name):
        return weights.name
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        return LocalCheckpoint(place.id, readable_sae_folder(place, self._home))

    def delete_model(self, id: str) -> DeletionResult:
        """Raises ModelNotFound, or Conflict for what ships with miLLM or is being downloaded."""
        with self._delete_lock:
            place = _find(self._model_locations(), id, "model", ModelNotFound)
            self._uninstall(place, "model")
            freed = hf_cache.remove_revision(place.revision) if place.revision else hf_cache.remove_link(place.folder)
        return DeletionResult(id=place.id, bytes=freed, kept=max(total_size(place.files) - freed, 0))

    def delete_sae(self, id: str) -> DeletionResult:
        """With miLLM's own copy of it. Raises SaeNotFound, or Conflict as `delete_model`."""
        with self._delete_lock:
            place = _find(self._sae_locations(), id, "SAE", SaeNotFound)
            self._uninstall(place, "sae")
            ours = remove_sae_copies(place, self._home)
            paths = [file.path for file in place.files.values()]
            own = hf_cache.remove_files(place.revision, paths) if place.revision else hf_cache.remove_link(place.folder)
        return DeletionResult(id=place.id, bytes=ours + own, kept=max(total_size(place.files) - own, 0))

    def import_model(self, folder: Path, name: str | None = None) -> ModelEntry:
        """A link to a folder of this machine; for the terminal only.

        Raises InvalidRequest (the name), Conflict (it is taken) or InvalidModel (no whole model is there).
        """
        place = locate.read_model_link(self._add_link(self._home.model_links, folder, name, self._model_locations()))
        return self._reject_damaged_import(place, self._model_entries([place])[0], InvalidModel)

    def import_sae(self, folder: Path, name: str | None = None) -> SaeEntry:
        """As `import_model`, with InvalidSae."""
        place = locate.read_sae_link(self._add_link(self._home.sae_links, folder, name, self._sae_locations()))
        if not place.problem and place.layout is None:
            place.folder.unlink()
            raise InvalidSae("no SAE found in this folder: neither cfg.json and sae_weights.safetensors nor params.npz")
        return self._reject_damaged_import(place, self._sae_entries([place])[0], InvalidSae)

    def _model_locations(self) -> list[LibraryLocation]:
        return list(locate.scan_models(self._home.model_links, self._builtin_models, self._requested_branches()))

    def _sae_locations(self) -> list[LibraryLocation]:
        return list(locate.scan_saes(self._home.sae_links, self._builtin_saes, self._requested_branches()))

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


@dataclass(frozen=True)
class Hub:
    home: Home
    database: Database
    library: Library
    downloads: Downloads
