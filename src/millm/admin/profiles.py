"""`/api/profiles`: the named steerings, and which of them steers the server."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from millm.access import requires
from millm.admin.answers import struct_response
from millm.admin.ids import StrictBody
from millm.admin.profile_told import profile_detail, profile_entry
from millm.admin.route import AdminRoute, json_response
from millm.admin.status import server_status
from millm.lifecycle import steering
from millm.lifecycle.changes import wait_until_started
from millm.lifecycle.profile_exchange import profile_from_active
from millm.lifecycle.steering import activate, activate_profile
from millm.profiles.schema import Profile, ProfileName, WatchedFeature
from millm.profiles.store import ProfileDetail, ProfileEntry, ProfilePage
from millm.state import State
from millm.status import ServerStatus

router = APIRouter(prefix="/profiles", route_class=AdminRoute)

PathProfileName = Annotated[str, Path(max_length=512, description="Of a profile, in any case.")]


class Save(StrictBody):
    """A name for what steers the server now."""

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
    request: Request,
    search: Annotated[str, Query(max_length=200, description="Found in the name, the description or a tag.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """Profiles in the order of their names, and how many there are."""
    state: State = request.app.state.millm
    found, total = state.profiles.page(search=search, limit=limit, offset=offset)
    return json_response(ProfilePage(profiles=tuple(profile_entry(state, stored) for stored in found), total=total))


@router.post("", dependencies=[requires("admin")], status_code=201, responses=struct_response(ProfileEntry, 201))
async def add_profile(request: Request, body: Profile) -> Response:
    """Add a profile, as a file has it."""
    state: State = request.app.state.millm
    return json_response(profile_entry(state, await steering.create_profile(state, body)), 201)


@router.post("/save", dependencies=[requires("admin")], status_code=201, responses=struct_response(ProfileEntry, 201))
async def save_profile(request: Request, body: Save) -> Response:
    """Make a profile of the steering that is active now, which has that name then.

    With the model and the SAEs that it was made on, and the knobs that are heard.
    """
    state: State = request.app.state.millm
    await wait_until_started(state)
    lists = {name: tuple(getattr(body, name)) for name in ("watch", "example_prompts", "tags")}
    made = profile_from_active(state, body.name, description=body.description, **lists)
    return json_response(
        profile_entry(state, await steering.save_active_profile(state, made, overwrite=body.overwrite)), 201
    )


@router.post("/deactivate", dependencies=[requires("admin")], responses=struct_response(ServerStatus))
async def deactivate(request: Request) -> Response:
    """The base model answers from the next token on, unless a request says otherwise; → the status."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    await activate(state, None)
    return json_response(server_status(state))


@router.get("/{name}", dependencies=[requires("monitor")], responses=struct_response(ProfileDetail))
async def get_profile(request: Request, name: PathProfileName) -> Response:
    """One profile, as a file has it."""
    state: State = request.app.state.millm
    return json_response(profile_detail(state, state.profiles.find_stored(name)))


@router.put("/{name}", dependencies=[requires("admin")], responses=struct_response(ProfileEntry))
async def put_profile(request: Request, name: PathProfileName, body: Profile) -> Response:
    """Put another in its place, under that one's name. The active profile is applied anew: all of it, or nothing."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    return json_response(profile_entry(state, await steering.update_profile(state, name, body)))


@router.delete("/{name}", dependencies=[requires("admin")], responses=struct_response(ProfileEntry))
async def delete_profile(
    request: Request,
    name: PathProfileName,
    force: Annotated[bool, Query(description="Also the active one, which is turned off.")] = False,
) -> Response:
    """Delete a profile; → what it was."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    was = profile_entry(state, state.profiles.find_stored(name))
    await steering.remove_profile(state, name, force=force)
    return json_response(was)


@router.post("/{name}/rename", dependencies=[requires("admin")], responses=struct_response(ProfileEntry))
async def rename_profile(request: Request, name: PathProfileName, body: Rename) -> Response:
    """Give it another name. The active one stays active."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    renamed = state.profiles.find(name).model_copy(update={"name": body.name})
    return json_response(profile_entry(state, await steering.update_profile(state, name, renamed)))


@router.post(
    "/{name}/duplicate", dependencies=[requires("admin")], status_code=201, responses=struct_response(ProfileEntry, 201)
)
async def duplicate_profile(request: Request, name: PathProfileName, body: Duplicate | None = None) -> Response:
    """Add the same under another name."""
    state: State = request.app.state.millm
    found = state.profiles.find(name)
    wanted = body.name if body and body.name else state.profiles.free_name(found.name)
    return json_response(
        profile_entry(state, await steering.create_profile(state, found.model_copy(update={"name": wanted}))), 201
    )


@router.post("/{name}/activate", dependencies=[requires("admin")], responses=struct_response(ProfileEntry))
async def activate_named(request: Request, name: PathProfileName) -> Response:
    """Steer with it from the next token on, every request that does not say otherwise."""
    state: State = request.app.state.millm
    await wait_until_started(state)
    await activate_profile(state, name)
    return json_response(profile_entry(state, state.profiles.find_stored(name)))
