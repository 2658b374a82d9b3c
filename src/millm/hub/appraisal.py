"""A place on the disk → an entry of the library: what it says of itself, and whether it is all there."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from millm.errors import InvalidModel, InvalidSae
from millm.hub import model_told, registry, sae_layout
from millm.hub.entries import ModelEntry, SaeEntry
from millm.hub.installed import InstallKey, InstallRecord
from millm.hub.jobs import ArtifactKind, DownloadJob
from millm.hub.places import LibraryLocation
from millm.hub.tree import total_size
from millm.hub.whole import INTACT, IntegrityResult, check_installed_sizes, check_model_files, check_sae_files

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
        neuronpedia=registry.neuronpedia_link(location.id) if location.revision else None,
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


def _model_metadata(location: LibraryLocation) -> model_told.ModelMetadata:
    try:
        return (
            model_told.read_model_metadata(location.files)
            if "config.json" in location.files
            else model_told.ModelMetadata()
        )
    except InvalidModel:  # its condition says so
        return model_told.ModelMetadata()


def _sae_metadata(location: LibraryLocation) -> sae_layout.SaeMetadata:
    """Where its files say nothing, the catalogue of public SAEs may."""
    known = registry.find_sae(location.id) if location.revision else None
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
