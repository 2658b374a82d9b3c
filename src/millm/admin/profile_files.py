"""`/api/profiles/import` and `…/export`: other tools' documents as profiles and labels, and profiles as theirs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response

from millm.access import requires
from millm.admin.answers import answered, file
from millm.admin.imported import Imported, ImportedEntry, ImportPreview, entry_told, preview_told
from millm.admin.route import AdminRoute, told
from millm.errors import InvalidImport, ProfileNameTaken
from millm.lifecycle.labels import relabelled
from millm.lifecycle.profiles import add, change
from millm.profiles.contract import Profile
from millm.profiles.exporting import Format, exported
from millm.profiles.importers.values import Entry
from millm.profiles.importing import previewed, remember
from millm.profiles.names import LONGEST, ProfileName, key
from millm.state import State

router = APIRouter(prefix="/profiles", route_class=AdminRoute)

SaeNames = Annotated[
    list[Annotated[str, Query(max_length=1024)]],
    Query(alias="sae", max_length=100, description="`<foreign id>=<our id>`: which of our SAEs is meant; repeatable."),
]
Conflict = Literal["refuse", "rename", "replace", "skip"]
_DOCUMENT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/import/preview",
    dependencies=[requires("monitor")],
    responses=answered(ImportPreview),
    openapi_extra=_DOCUMENT,
)
async def preview_import(request: Request, sae: SaeNames = []) -> Response:  # noqa: B006 - FastAPI copies it
    """What a document of any known shape would become: every entry, and all that is changed or left out."""
    state: State = request.app.state.millm
    return told(preview_told(await previewed(state, await request.body(), _said(sae))))


@router.post("/import", dependencies=[requires("admin")], responses=answered(Imported), openapi_extra=_DOCUMENT)
async def import_document(
    request: Request,
    sae: SaeNames = [],  # noqa: B006 - FastAPI copies it
    only: Annotated[list[str], Query(max_length=1000, description="JSON path of an entry; repeatable.")] = [],  # noqa: B006
    name: Annotated[
        ProfileName | None, Query(alias="as", max_length=LONGEST, description="Name, for the only entry.")
    ] = None,
    on_conflict: Conflict = "refuse",
) -> Response:
    """Take a document's entries in; what is unresolved has to be said first, and nothing is taken in by halves."""
    state: State = request.app.state.millm
    said = _said(sae)
    found = await previewed(state, await request.body(), said)
    entries = _named(_chosen(found.entries, only), name)
    _check(state, entries, on_conflict)
    await asyncio.to_thread(remember, state.hub.database, said)
    return told(Imported(entries=tuple([await _taken_in(state, entry, on_conflict) for entry in entries])))


@router.get("/{name}/export", dependencies=[requires("monitor")], responses=file("application/octet-stream"))
async def export_profile(
    request: Request,
    name: Annotated[str, Path(max_length=LONGEST)],
    format: Format = "millm",
    skip: Annotated[
        Literal["default", "none", "special"] | None,
        Query(description="Export as if the profile said so: what other tools steer differs from our `bos`."),
    ] = None,
) -> Response:
    """A profile as a file, in another tool's format too; what that cannot carry is refused by name."""
    state: State = request.app.state.millm
    profile = state.profiles.find(name)
    if skip is not None:
        profile = profile.model_copy(update={"skip": None if skip == "default" else skip})
    file = await exported(state, profile, format)
    place = f"attachment; filename*=UTF-8''{quote(file.name)}"
    return Response(file.body, media_type=file.media_type, headers={"Content-Disposition": place})


def _said(pairs: Sequence[str]) -> dict[str, str]:
    """`foreign=ours`; ours holds no `=`."""
    said = {}
    for pair in pairs:
        foreign, separator, ours = pair.rpartition("=")
        if not (separator and foreign and ours and ours.isprintable()):
            raise InvalidImport("`sae` has to be <foreign id>=<our id>", param="sae")
        said[foreign] = ours
    return said


def _chosen(entries: Sequence[Entry], only: Sequence[str]) -> list[Entry]:
    known = {entry.path for entry in entries}
    for path in only:
        if path not in known:
            raise InvalidImport(f"the document has no entry {path[:128]!r}; it has: {', '.join(known)}", param="only")
    found = [entry for entry in entries if entry.path in only or not only]
    if all(entry.becomes == "nothing" for entry in found):
        why = found[0].notes[0] if found and found[0].notes else "it has no entries"
        raise InvalidImport(f"nothing of the document can be taken in: {why}")
    return found


def _named(entries: list[Entry], name: str | None) -> list[Entry]:
    if name is None:
        return entries
    if len(entries) != 1 or entries[0].profile is None:
        raise InvalidImport("`as` names a document's only profile; choose one with `only`", param="as")
    renamed = entries[0].profile.model_copy(update={"name": name})
    return [replace(entries[0], name=name, profile=renamed)]


def _check(state: State, entries: Sequence[Entry], on_conflict: Conflict) -> None:
    """All that can be refused is refused before anything is written."""
    seen: set[str] = set()
    for entry in entries:
        if entry.unresolved:
            first = entry.unresolved[0]
            raise InvalidImport(f"{first.path}: {first.id[:200]!r} is not known here; {first.reason}", param="sae")
        if entry.profile and on_conflict == "refuse" and (_is_taken(state, entry.name) or key(entry.name) in seen):
            raise ProfileNameTaken(
                f"there is a profile named {entry.name!r} already; import with on_conflict rename, replace or skip",
                param="on_conflict",
            )
        seen.add(key(entry.name))


def _is_taken(state: State, name: str) -> bool:
    return any(key(one.name) == key(name) for one in state.profiles.all())


async def _taken_in(state: State, entry: Entry, on_conflict: Conflict) -> ImportedEntry:
    if entry.labels and entry.sae:
        await relabelled(state, entry.sae, entry.labels, "mistudio")
        return entry_told(entry, "added")
    if entry.profile is None:
        return entry_told(entry, "nothing")
    return await _stored(state, entry, entry.profile, on_conflict)


async def _stored(state: State, entry: Entry, profile: Profile, on_conflict: Conflict) -> ImportedEntry:
    if not _is_taken(state, profile.name):
        await add(state, profile)
        return entry_told(entry, "added")
    if on_conflict == "skip":
        return entry_told(entry, "skipped")
    if on_conflict == "replace":
        await change(state, profile.name, profile)
        return entry_told(entry, "replaced")
    free = state.profiles.free_name(profile.name)
    await add(state, profile.model_copy(update={"name": free}))
    return entry_told(replace(entry, name=free), "added")
