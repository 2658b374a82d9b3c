"""A place on the disk → an entry of the library: what it says of itself, and whether it is all there."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from millm.errors import InvalidModel, InvalidSae
from millm.hub import model_told, registry, sae_layout
from millm.hub.entries import ModelEntry, SaeEntry
from millm.hub.installed import Installed, Key
from millm.hub.jobs import Job, Kind
from millm.hub.places import Place
from millm.hub.tree import total
from millm.hub.whole import WHOLE, Condition, against_installed, model_condition, sae_condition

Known = TypeVar("Known")

Blobs = Counter[Path]
"""How many entries use a file."""


def blobs_of(places: Iterable[Place]) -> Blobs:
    return Counter(where for place in places for where in {file.where for file in place.files.values()})


def model_entry(place: Place, blobs: Blobs, rows: Mapping[Key, Installed], jobs: Mapping[Key, Job]) -> ModelEntry:
    row = _of(place, "model", rows)
    found = model_condition(place.files)
    condition = _condition(place, row, _of(place, "model", jobs), found if row else _unless_unfinished(place, found))
    own = {file.where: file.size or 0 for file in place.files.values()}
    return ModelEntry(
        id=place.id,
        origin=place.origin,
        state=condition.state,
        problem=condition.problem,
        is_verified=row is not None and condition.state == "whole",
        commit=place.revision.commit if place.revision else None,
        size=sum(own.values()),
        shared=sum(size for where, size in own.items() if blobs[where] > 1),
        last_used=max((file.used for file in place.files.values()), default=None) or None,
        **vars(_told_of_model(place)),
    )


def sae_entry(place: Place, rows: Mapping[Key, Installed], jobs: Mapping[Key, Job]) -> SaeEntry:
    row = _of(place, "sae", rows)
    found = sae_condition(place.files, sae_layout.needed(place.layout))
    condition = _condition(place, row, _of(place, "sae", jobs), found)
    return SaeEntry(
        id=place.id,
        origin=place.origin,
        state=condition.state,
        problem=condition.problem,
        is_verified=row is not None and condition.state == "whole",
        commit=place.revision.commit if place.revision else None,
        size=total(place.files),
        neuronpedia=registry.neuronpedia_link(place.id) if place.revision else None,
        **vars(_told_of_sae(place)),
    )


def _condition(place: Place, row: Installed | None, job: Job | None, found: Condition) -> Condition:
    """The worst that is known. A verified download counts for more than a job or a leftover beside it."""
    if place.problem:
        return Condition("damaged", place.problem)
    if row:
        compared = against_installed(place.files, row.sizes())
        return found if compared == WHOLE else compared
    if found == WHOLE and job and job.state != "installed":
        return Condition("incomplete", f"its download is {job.state}; resume it, or delete what is here")
    return found


def _unless_unfinished(place: Place, found: Condition) -> Condition:
    """A cache that others filled has no rows: a leftover is all that tells of a file that never came."""
    if found == WHOLE and place.revision and place.revision.unfinished:
        return Condition("incomplete", "a file of it began to arrive and did not end; download it again")
    return found


def _of(place: Place, kind: Kind, known: Mapping[Key, Known]) -> Known | None:
    """What the database knows of exactly this commit."""
    if place.revision is None:
        return None
    return known.get((kind, place.revision.repository, place.revision.commit, place.inside))


def _told_of_model(place: Place) -> model_told.Told:
    try:
        return model_told.told(place.files) if "config.json" in place.files else model_told.Told()
    except InvalidModel:  # its condition says so
        return model_told.Told()


def _told_of_sae(place: Place) -> sae_layout.Told:
    """Where its files say nothing, the catalogue of public SAEs may."""
    known = registry.find(place.id) if place.revision else None
    told = _told_by_files(place)
    if known is None:
        return told
    public = sae_layout.Told(None, None, known.width, None, known.hook_point, known.layer, known.model)
    return sae_layout.Told(**{key: vars(public)[key] if value is None else value for key, value in vars(told).items()})


def _told_by_files(place: Place) -> sae_layout.Told:
    path = os.path.realpath(place.folder)  # of a cache's folders the names are in it too
    try:
        return sae_layout.told(place.layout, place.files, path)
    except (InvalidModel, InvalidSae):  # its condition says so
        return sae_layout.Told(format=place.layout)
