"""`/api/profiles`: the stored profiles and the active one, imports of other tools' documents, and exports."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from millm.api.admin.openapi import file_response, struct_response
from millm.api.admin.route import AdminRoute, ServerState, StrictBody, json_response
from millm.api.admin.schemas import (
    ImportedEntry,
    ImportPreview,
    ImportResponse,
    imported_entry,
    preview_response,
)
from millm.api.admin.system import server_status
from millm.api.dependencies import requires
from millm.errors import InvalidImport, ProfileNameTaken
from millm.lifecycle import steering
from millm.lifecycle.changes import wait_until_started
from millm.lifecycle.profile_exchange import (
    ExportFormat,
    preview_document,
    profile_from_active,
    remember_sae_ids,
    render_export,
)
from millm.lifecycle.saes import store_labels
from millm.lifecycle.steering import activate, activate_profile, create_profile, update_profile
from millm.profiles import store
from millm.profiles.formats.document import DocumentEntry
from millm.profiles.resolve import incompatibility
from millm.profiles.schema import MAX_NAME_LENGTH, Profile, ProfileName, WatchedFeature, name_key
from millm.profiles.store import ProfileDetail, ProfileEntry, ProfilePage, StoredProfile
from millm.state import State
from millm.status import ServerStatus

router = APIRouter(prefix="/profiles", route_class=AdminRoute)
PathProfileName = Annotated[str, Path(max_length=512, description="Of a profile, in any case.")]
SaeNames = Annotated[
    list[Annotated[str, Query(max_length=1024)]],
    Query(
        alias="sae", max_length=100, description="`<foreign id>=<our id>`: the library id of a foreign SAE; repeatable."
    ),
]
OnConflict = Literal["refuse", "rename", "replace", "skip"]
_BINARY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/import/preview",
    dependencies=[requires("monitor")],
    responses=struct_response(ImportPreview),
    openapi_extra=_BINARY_BODY,
)
async def preview_import(request: Request, state: ServerState, sae: SaeNames = []) -> Response:  # noqa: B006 - FastAPI copies it
    """Preview the import of a document: its entries, and notes on everything changed or left out."""
    return json_response(preview_response(await preview_document(state, await request.body(), _parse_sae_names(sae))))


@router.post(
    "/import", dependencies=[requires("admin")], responses=struct_response(ImportResponse), openapi_extra=_BINARY_BODY
)
async def import_document(
    request: Request,
    state: ServerState,
    sae: SaeNames = [],  # noqa: B006 - FastAPI copies it
    only: Annotated[list[str], Query(max_length=1000, description="JSON path of an entry; repeatable.")] = [],  # noqa: B006
    name: Annotated[
        ProfileName | None, Query(alias="as", max_length=MAX_NAME_LENGTH, description="Name, for the only entry.")
    ] = None,
    on_conflict: OnConflict = "refuse",
) -> Response:
    """Import a document's entries, all or none; unresolved references are an error."""
    sae_ids = _parse_sae_names(sae)
    document = await preview_document(state, await request.body(), sae_ids)
    entries = _rename_only_entry(_select_entries(document.entries, only), name)
    _check_entries(state, entries, on_conflict)
    await asyncio.to_thread(remember_sae_ids, state.hub.database, sae_ids)
    return json_response(
        ImportResponse(entries=tuple([await _import_entry(state, entry, on_conflict) for entry in entries]))
    )


@router.get("/{name}/export", dependencies=[requires("monitor")], responses=file_response("application/octet-stream"))
async def export_profile(
    state: ServerState,
    name: Annotated[str, Path(max_length=MAX_NAME_LENGTH)],
    format: ExportFormat = "millm",
    skip: Annotated[
        Literal["default", "none", "special"] | None,
        Query(description="Override `skip` for the export: other tools skip other tokens than `bos`."),
    ] = None,
) -> Response:
    """A profile as a file, in miLLM's or another tool's format; an error names what the format cannot express."""
    profile = state.profiles.find(name)
    if skip is not None:
        profile = profile.model_copy(update={"skip": None if skip == "default" else skip})
    file = await render_export(state, profile, format)
    disposition = f"attachment; filename*=UTF-8''{quote(file.name)}"
    return Response(file.body, media_type=file.media_type, headers={"Content-Disposition": disposition})


def _parse_sae_names(pairs: Sequence[str]) -> dict[str, str]:
    """Foreign id → library id, of `foreign=library`; library ids contain no `=`."""
    names = {}
    for pair in pairs:
        foreign, separator, library_id = pair.rpartition("=")
        if not (separator and foreign and library_id and library_id.isprintable()):
            raise InvalidImport("`sae` has to be <foreign id>=<our id>", param="sae")
        names[foreign] = library_id
    return names


def _select_entries(entries: Sequence[DocumentEntry], only: Sequence[str]) -> list[DocumentEntry]:
    known = {entry.path for entry in entries}
    for path in only:
        if path not in known:
            raise InvalidImport(f"the document has no entry {path[:128]!r}; it has: {', '.join(known)}", param="only")
    selected = [entry for entry in entries if entry.path in only or not only]
    if all(entry.becomes == "nothing" for entry in selected):
        why = selected[0].notes[0] if selected and selected[0].notes else "it has no entries"
        raise InvalidImport(f"nothing of the document can be imported: {why}")
    return selected


def _rename_only_entry(entries: list[DocumentEntry], name: str | None) -> list[DocumentEntry]:
    if name is None:
        return entries
    if len(entries) != 1 or entries[0].profile is None:
        raise InvalidImport("`as` names a document's only profile; choose one with `only`", param="as")
    renamed = entries[0].profile.model_copy(update={"name": name})
    return [replace(entries[0], name=name, profile=renamed)]


def _check_entries(state: State, entries: Sequence[DocumentEntry], on_conflict: OnConflict) -> None:
    """Raise all errors before the first write."""
    seen: set[str] = set()
    for entry in entries:
        if entry.unresolved:
            first = entry.unresolved[0]
            raise InvalidImport(f"{first.path}: {first.id[:200]!r} is not known here; {first.reason}", param="sae")
        if (
            entry.profile
            and on_conflict == "refuse"
            and (state.profiles.has(entry.name) or name_key(entry.name) in seen)
        ):
            raise ProfileNameTaken(
                f"there is a profile named {entry.name!r} already; import with on_conflict rename, replace or skip",
                param="on_conflict",
            )
        seen.add(name_key(entry.name))


async def _import_entry(state: State, entry: DocumentEntry, on_conflict: OnConflict) -> ImportedEntry:
    if entry.labels and entry.sae:
        await store_labels(state, entry.sae, entry.labels, "mistudio")
        return imported_entry(entry, "added")
    if entry.profile is None:
        return imported_entry(entry, "nothing")
    return await _store_profile(state, entry, entry.profile, on_conflict)


async def _store_profile(
    state: State, entry: DocumentEntry, profile: Profile, on_conflict: OnConflict
) -> ImportedEntry:
    if not state.profiles.has(profile.name):
        await create_profile(state, profile)
        return imported_entry(entry, "added")
    if on_conflict == "skip":
        return imported_entry(entry, "skipped")
    if on_conflict == "replace":
        await update_profile(state, profile.name, profile)
        return imported_entry(entry, "replaced")
    free = state.profiles.free_name(profile.name)
    await create_profile(state, profile.model_copy(update={"name": free}))
    return imported_entry(replace(entry, name=free), "added")


class Save(StrictBody):
    """A name and further fields for the active steering."""

    name: ProfileName
    description: Annotated[str, Field(max_length=2000)] = ""
    overwrite: Annotated[bool, Field(description="A profile that has the name already.")] = False
    watch: Annotated[list[WatchedFeature], Field(default_factory=list, max_length=128)]
    example_prompts: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(default_factory=list, max_length=50)]
    tags: Annotated[list[Annotated[str, Field(max_length=64)]], Field(default_factory=list, max_length=50)]


class Rename(StrictBody):
    name: ProfileName


class Duplicate(StrictBody):
    name: Annotated[ProfileName | None, Field(description="Default: the same, with a number behind it.")] = None


@router.get("", dependencies=[requires("monitor")], responses=struct_response(ProfilePage))
async def list_profiles(
    state: ServerState,
    search: Annotated[str, Query(max_length=200, description="Found in the name, the description or a tag.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """A page of the profiles, sorted by name, and their total number."""
    page, total = state.profiles.page(search=search, limit=limit, offset=offset)
    return json_response(ProfilePage(profiles=tuple(_profile_entry(state, stored) for stored in page), total=total))


@router.post("", dependencies=[requires("admin")], status_code=201, responses=struct_response(ProfileEntry, 201))
async def add_profile(state: ServerState, body: Profile) -> Response:
    """Add a profile, in the file format."""
    return json_response(_profile_entry(state, await create_profile(state, body)), 201)


@router.post("/save", dependencies=[requires("admin")], status_code=201, responses=struct_response(ProfileEntry, 201))
async def save_profile(state: ServerState, body: Save) -> Response:
    """Save the active steering as a profile, with its model, SAEs and effective features."""
    await wait_until_started(state)
    lists = {name: tuple(getattr(body, name)) for name in ("watch", "example_prompts", "tags")}
    profile = profile_from_active(state, body.name, description=body.description, **lists)
    stored = await steering.save_active_profile(state, profile, overwrite=body.overwrite)
    return json_response(_profile_entry(state, stored), 201)


@router.post("/deactivate", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def deactivate(state: ServerState) -> Response:
    """Deactivate the steering from the next token on; returns the status."""
    await wait_until_started(state)
    await activate(state, None)
    return json_response(server_status(state))


@router.get("/{name}", dependencies=[requires("monitor")], responses=struct_response(ProfileDetail))
async def get_profile(state: ServerState, name: PathProfileName) -> Response:
    """One profile, in the file format."""
    stored = state.profiles.find_stored(name)
    document = stored.profile.model_dump(mode="json", exclude_none=True)
    return json_response(ProfileDetail(profile=document, entry=_profile_entry(state, stored)))


@router.put("/{name}", dependencies=[requires("admin")], responses=struct_response(ProfileEntry))
async def put_profile(state: ServerState, name: PathProfileName, body: Profile) -> Response:
    """Replace a profile, perhaps under a new name. The active one is applied again in the same transaction."""
    await wait_until_started(state)
    return json_response(_profile_entry(state, await update_profile(state, name, body)))


@router.delete("/{name}", dependencies=[requires("admin")], responses=struct_response(ProfileEntry))
async def delete_profile(
    state: ServerState,
    name: PathProfileName,
    force: Annotated[bool, Query(description="Also the active one, which is turned off.")] = False,
) -> Response:
    """Delete a profile; returns its former entry."""
    await wait_until_started(state)
    entry = _profile_entry(state, state.profiles.find_stored(name))
    await steering.remove_profile(state, name, force=force)
    return json_response(entry)


@router.post("/{name}/rename", dependencies=[requires("admin")], responses=struct_response(ProfileEntry))
async def rename_profile(state: ServerState, name: PathProfileName, body: Rename) -> Response:
    """Rename a profile. The active one stays active."""
    await wait_until_started(state)
    renamed = state.profiles.find(name).model_copy(update={"name": body.name})
    return json_response(_profile_entry(state, await update_profile(state, name, renamed)))


@router.post(
    "/{name}/duplicate", dependencies=[requires("admin")], status_code=201, responses=struct_response(ProfileEntry, 201)
)
async def duplicate_profile(state: ServerState, name: PathProfileName, body: Duplicate | None = None) -> Response:
    """Copy a profile under another name."""
    original = state.profiles.find(name)
    copy_name = body.name if body and body.name else state.profiles.free_name(original.name)
    stored = await create_profile(state, original.model_copy(update={"name": copy_name}))
    return json_response(_profile_entry(state, stored), 201)


@router.post("/{name}/activate", dependencies=[requires("admin")], responses=struct_response(ProfileEntry))
async def activate_named(state: ServerState, name: PathProfileName) -> Response:
    """Activate a profile from the next token on."""
    await wait_until_started(state)
    await activate_profile(state, name)
    return json_response(_profile_entry(state, state.profiles.find_stored(name)))


def _profile_entry(state: State, stored: StoredProfile) -> ProfileEntry:
    return store.profile_entry(
        stored,
        is_active=state.active is not None and state.active.profile == stored.profile.name,
        incompatibility=incompatibility(state.model, state.saes, stored.profile),
        model=state.model.name if state.model else None,
    )
