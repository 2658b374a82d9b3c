"""The library: models and SAEs on this disk by public id, their integrity, import and deletion.

Loaded models and attached SAEs are unknown here: callers check before they delete.
"""

import hashlib
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from millm.database import Database
from millm.errors import Conflict, InvalidModel, InvalidSae, ModelNotFound, SaeNotFound
from millm.hub import catalog, hf_cache, locate
from millm.hub.checkpoint import (
    INTACT,
    IntegrityResult,
    ModelMetadata,
    check_installed_sizes,
    check_model_files,
    check_model_folder,
    check_sae_files,
    read_model_metadata,
)
from millm.hub.downloads import Downloads
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.home import Home, add_link, check_library_name, files_below, total_size
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
from millm.hub.sae_layout import SaeMetadata, is_native_layout, read_sae_metadata, required_files

Known = TypeVar("Known")
Entry = TypeVar("Entry", ModelEntry, SaeEntry)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_LISTED_IDS = 12


def build_model_entry(
    location: LibraryLocation,
    blob_uses: Mapping[Path, int],
    records: Mapping[InstallKey, InstallRecord],
    jobs: Mapping[InstallKey, DownloadJob],
) -> ModelEntry:
    record = _lookup(location, "model", records)
    integrity = check_model_files(location.files)
    if record is None:
        integrity = _unrecorded_integrity(location, integrity)
    integrity = _entry_integrity(location, record, _lookup(location, "model", jobs), integrity)
    sizes = {file.real_path: file.size or 0 for file in location.files.values()}
    return ModelEntry(
        size=sum(sizes.values()),
        shared=sum(size for path, size in sizes.items() if blob_uses[path] > 1),
        last_used=max((file.accessed for file in location.files.values()), default=None) or None,
        **_common_fields(location, record, integrity),
        **vars(_model_metadata(location)),
    )


def build_sae_entry(
    location: LibraryLocation, records: Mapping[InstallKey, InstallRecord], jobs: Mapping[InstallKey, DownloadJob]
) -> SaeEntry:
    record = _lookup(location, "sae", records)
    integrity = check_sae_files(location.files, required_files(location.layout))
    integrity = _entry_integrity(location, record, _lookup(location, "sae", jobs), integrity)
    return SaeEntry(
        size=total_size(location.files),
        neuronpedia=catalog.neuronpedia_link(location.id) if location.revision else None,
        **_common_fields(location, record, integrity),
        **vars(_sae_metadata(location)),
    )


def _common_fields(
    location: LibraryLocation, record: InstallRecord | None, integrity: IntegrityResult
) -> dict[str, Any]:
    return {
        "id": location.id,
        "origin": location.origin,
        "state": integrity.state,
        "problem": integrity.problem,
        "is_verified": record is not None and integrity.state == "whole",
        "commit": location.revision.commit if location.revision else None,
    }


def _entry_integrity(
    location: LibraryLocation, record: InstallRecord | None, job: DownloadJob | None, files_integrity: IntegrityResult
) -> IntegrityResult:
    """The worst known state; a verified download overrules a job or a leftover file."""
    if location.problem:
        return IntegrityResult("damaged", location.problem)
    if record:
        compared = check_installed_sizes(location.files, record.sizes())
        return files_integrity if compared == INTACT else compared
    if files_integrity == INTACT and job and job.state != "installed":
        return IntegrityResult("incomplete", f"its download is {job.state}; resume it, or delete what is here")
    return files_integrity


def _unrecorded_integrity(location: LibraryLocation, files_integrity: IntegrityResult) -> IntegrityResult:
    """Without an install record, a leftover file is the only sign of one that never arrived."""
    if files_integrity == INTACT and location.revision and location.revision.has_incomplete_file:
        return IntegrityResult("incomplete", "the download of a file was interrupted; download it again")
    return files_integrity


def _lookup(location: LibraryLocation, kind: ArtifactKind, table: Mapping[InstallKey, Known]) -> Known | None:
    """The database's record of exactly this commit."""
    if location.revision is None:
        return None
    return table.get((kind, location.revision.repository, location.revision.commit, location.subpath))


def _model_metadata(location: LibraryLocation) -> ModelMetadata:
    if "config.json" not in location.files:
        return ModelMetadata()
    try:
        return read_model_metadata(location.files)
    except InvalidModel:  # reported by the entry's state
        return ModelMetadata()


def _sae_metadata(location: LibraryLocation) -> SaeMetadata:
    """The catalogue of public SAEs fills unknown fields."""
    path = os.path.realpath(location.folder)  # in a cache, it includes the repository's name
    try:
        metadata = read_sae_metadata(location.layout, location.files, path)
    except (InvalidModel, InvalidSae):  # reported by the entry's state
        metadata = SaeMetadata(format=location.layout)
    public = catalog.find_sae(location.id) if location.revision else None
    if public is None:
        return metadata
    return replace(
        metadata,
        width=public.width if metadata.width is None else metadata.width,
        hook_point=public.hook_point if metadata.hook_point is None else metadata.hook_point,
        layer=public.layer if metadata.layer is None else metadata.layer,
        model=public.model if metadata.model is None else metadata.model,
    )


class _CanonicalHeader(msgspec.Struct):
    sha256: str


def readable_sae_folder(location: LibraryLocation, home: Home) -> Path:
    """The SAE's folder, or that of its converted copy. Raises InvalidSae without a copy."""
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
    """Returns the bytes that became free."""
    if location.problem or location.layout is None:
        return 0
    copy = None if is_native_layout(location.layout) else find_converted(location.folder, location.id, home)
    sha256 = _file_hash(copy / "sae_weights.safetensors") if copy else _weights_hash(location)
    freed = _remove_canonical(home.canonical_saes, sha256) if sha256 else 0
    return freed + (_remove_folder(copy) if copy else 0)


def _remove_canonical(saes: Path, sha256: str) -> int:
    """Remove the engine's memory-mapped copies."""
    folders = list(saes.iterdir()) if saes.is_dir() else []
    return sum(_remove_folder(folder) for folder in folders if _source_hash(folder) == sha256)


def _remove_folder(folder: Path) -> int:
    freed = sum(file.size or 0 for file in files_below(folder).values())
    shutil.rmtree(folder)
    return freed


def _source_hash(folder: Path) -> str | None:
    try:
        return msgspec.json.decode((folder / "config.json").read_bytes(), type=_CanonicalHeader).sha256
    except (OSError, msgspec.DecodeError):
        return None


def _weights_hash(location: LibraryLocation) -> str | None:
    """Read from the name of a large file's blob, computed for other files."""
    file = next((location.files[name] for name in required_files(location.layout)[:1] if name in location.files), None)
    return _file_hash(file.real_path) if file and file.size is not None else None


def _file_hash(path: Path) -> str:
    if _SHA256.fullmatch(path.name):
        return path.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Library:
    """Reads the disk on every call (about 10 ms for 50 entries). Thread-safe."""

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
        """Accepts all names: `owner/name`, `owner/name@revision`. Raises ModelNotFound."""
        locations = self._model_locations()
        location = _find(locations, id, "model", ModelNotFound)
        return next(entry for entry in self._model_entries(locations) if entry.id == location.id)

    def sae(self, id: str) -> SaeEntry:
        """Raises SaeNotFound."""
        return self._sae_entries([_find(self._sae_locations(), id, "SAE", SaeNotFound)])[0]

    def locate_model(self, id: str) -> LocalCheckpoint:
        """Raises ModelNotFound, InvalidModel for an incomplete or damaged model, or RemoteCodeRefused."""
        location = _find(self._model_locations(), id, "model", ModelNotFound)
        entry = self._model_entries([location])[0]
        _check_intact(entry, InvalidModel)
        commit = location.revision and f"{location.revision.repository}@{location.revision.commit}"
        is_trusted = entry.needs_remote_code and commit in self._trusted
        check_model_folder(location.folder, is_trusted=is_trusted)
        return LocalCheckpoint(location.id, location.folder, is_trusted)

    def locate_sae(self, id: str) -> LocalCheckpoint:
        """The folder, or that of the converted copy. Raises SaeNotFound, or InvalidSae as `locate_model`."""
        location = _find(self._sae_locations(), id, "SAE", SaeNotFound)
        _check_intact(self._sae_entries([location])[0], InvalidSae)
        return LocalCheckpoint(location.id, readable_sae_folder(location, self._home))

    def delete_model(self, id: str) -> DeletionResult:
        """Raises ModelNotFound, or Conflict for part of the package or an active download."""
        with self._delete_lock:
            location = _find(self._model_locations(), id, "model", ModelNotFound)
            self._uninstall(location, "model")
            freed = hf_cache.remove_revision(location.revision) if location.revision else _unlink_import(location)
        return DeletionResult(id=location.id, bytes=freed, kept=max(total_size(location.files) - freed, 0))

    def delete_sae(self, id: str) -> DeletionResult:
        """Removes miLLM's copies too. Raises SaeNotFound, or Conflict as `delete_model`."""
        with self._delete_lock:
            location = _find(self._sae_locations(), id, "SAE", SaeNotFound)
            self._uninstall(location, "sae")
            copies = remove_sae_copies(location, self._home)
            if location.revision:
                freed = hf_cache.remove_files(location.revision, [file.path for file in location.files.values()])
            else:
                freed = _unlink_import(location)
        return DeletionResult(id=location.id, bytes=copies + freed, kept=max(total_size(location.files) - freed, 0))

    def import_model(self, folder: Path, name: str | None = None) -> ModelEntry:
        """Link a folder of this machine; for the terminal only.

        Raises InvalidRequest (the name), Conflict (a used name) or InvalidModel (no complete model).
        """
        location = locate.read_model_link(self._add_link(self._home.model_links, folder, name, self._model_locations()))
        return self._reject_damaged_import(location, self._model_entries([location])[0], InvalidModel)

    def import_sae(self, folder: Path, name: str | None = None) -> SaeEntry:
        """As `import_model`, with InvalidSae."""
        location = locate.read_sae_link(self._add_link(self._home.sae_links, folder, name, self._sae_locations()))
        if not location.problem and location.layout is None:
            location.folder.unlink()
            raise InvalidSae("no SAE found in this folder: neither cfg.json and sae_weights.safetensors nor params.npz")
        return self._reject_damaged_import(location, self._sae_entries([location])[0], InvalidSae)

    def _model_locations(self) -> list[LibraryLocation]:
        return list(locate.scan_models(self._home.model_links, self._builtin_models, self._requested_branches()))

    def _sae_locations(self) -> list[LibraryLocation]:
        return list(locate.scan_saes(self._home.sae_links, self._builtin_saes, self._requested_branches()))

    def _requested_branches(self) -> dict[tuple[str, str], str]:
        jobs = latest_jobs(self._database)
        return {(repository, commit): job.asked.revision for (_, repository, commit, _), job in jobs.items()}

    def _model_entries(self, locations: list[LibraryLocation]) -> list[ModelEntry]:
        paths = ({file.real_path for file in location.files.values()} for location in locations)
        uses = Counter(path for unique in paths for path in unique)
        records, jobs = load_install_records(self._database), latest_jobs(self._database)
        return _by_id(build_model_entry(location, uses, records, jobs) for location in locations)

    def _sae_entries(self, locations: list[LibraryLocation]) -> list[SaeEntry]:
        records, jobs = load_install_records(self._database), latest_jobs(self._database)
        return _by_id(build_sae_entry(location, records, jobs) for location in locations)

    def _uninstall(self, location: LibraryLocation, kind: ArtifactKind) -> None:
        """Remove the install record first: from here on the entry counts as not installed."""
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
        check_library_name(chosen)
        if any(chosen in location.names for location in existing):
            raise Conflict(f"the library has a {chosen!r} already; give another name with --name")
        return add_link(parent, chosen, folder)

    def _reject_damaged_import(
        self, location: LibraryLocation, entry: Entry, error_type: type[InvalidModel] | type[InvalidSae]
    ) -> Entry:
        if entry.state != "whole":
            location.folder.unlink()
        _check_intact(entry, error_type)
        return entry


def _unlink_import(location: LibraryLocation) -> int:
    """The link's target is the user's, so that 0 bytes become free."""
    location.folder.unlink()
    return 0


def _find(
    locations: list[LibraryLocation], id: str, label: str, error_type: Callable[[str], Exception]
) -> LibraryLocation:
    for location in locations:
        if id == location.id or id in location.names:
            return location
    ids = sorted(location.id for location in locations)
    more = f" and {len(ids) - _MAX_LISTED_IDS} more" if len(ids) > _MAX_LISTED_IDS else ""
    existing = f"there are {', '.join(ids[:_MAX_LISTED_IDS])}{more}" if ids else "it is empty"
    raise error_type(f"the library has no {label} {id[:200]!r}; {existing}. `millm pull` downloads one")


def _check_intact(entry: ModelEntry | SaeEntry, error_type: type[InvalidModel] | type[InvalidSae]) -> None:
    if entry.state != "whole":
        raise error_type(f"{entry.id} is {entry.state}: {entry.problem}")


def _by_id(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.id)


@dataclass(frozen=True)
class Hub:
    home: Home
    database: Database
    library: Library
    downloads: Downloads
