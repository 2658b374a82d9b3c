"""`/api/profiles`: the named steerings, and which of them steers the server."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from millm.access import requires
from millm.admin.answers import answered
from millm.admin.ids import Body
from millm.admin.profile_told import entry_of, profile_told
from millm.admin.route import AdminRoute, told
from millm.admin.status import status_of
from millm.lifecycle import profiles
from millm.lifecycle.changes import started
from millm.lifecycle.steering import activate, activate_profile
from millm.profiles.contract import Profile, WatchedFeature
from millm.profiles.entry import ProfileEntry, ProfilePage, ProfileTold
from millm.profiles.names import ProfileName
from millm.profiles.saving import profile_of_active
from millm.state import State
from millm.status import ServerStatus

router = APIRouter(prefix="/profiles", route_class=AdminRoute)

Name = Annotated[str, Path(max_length=512, description="Of a profile, in any case.")]


class Save(Body):
    """A name for what steers the server now."""

    name: ProfileName
    description: Annotated[str, Field(max_length=2000)] = ""
    overwrite: Annotated[bool, Field(description="A profile that has the name already.")] = False
    watch: Annotated[list[WatchedFeature], Field(default_factory=list, max_length=128)]
    example_prompts: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(default_factory=list, max_length=50)]
    tags: Annotated[list[Annotated[str, Field(max_length=64)]], Field(default_factory=list, max_length=50)]


class Rename(Body):
    name: ProfileName


class Duplicate(Body):
    name: Annotated[ProfileName | None, Field(description="Default: the same, with a number behind it.")] = None


@router.get("", dependencies=[requires("monitor")], responses=answered(ProfilePage))
async def list_profiles(
    request: Request,
    search: Annotated[str, Query(max_length=200, description="Found in the name, the description or a tag.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """Profiles in the order of their names, and how many there are."""
    state: State = request.app.state.millm
    found, total = state.profiles.page(search=search, limit=limit, offset=offset)
    return told(ProfilePage(profiles=tuple(entry_of(state, stored) for stored in found), total=total))


@router.post("", dependencies=[requires("admin")], status_code=201, responses=answered(ProfileEntry, 201))
async def add_profile(request: Request, body: Profile) -> Response:
    """Add a profile, as a file has it."""
    state: State = request.app.state.millm
    return told(entry_of(state, await profiles.add(state, body)), 201)


@router.post("/save", dependencies=[requires("admin")], status_code=201, responses=answered(ProfileEntry, 201))
async def save_profile(request: Request, body: Save) -> Response:
    """Make a profile of the steering that is active now, which has that name then.

    With the model and the SAEs that it was made on, and the knobs that are heard.
    """
    state: State = request.app.state.millm
    await started(state)
    lists = {name: tuple(getattr(body, name)) for name in ("watch", "example_prompts", "tags")}
    made = profile_of_active(state, body.name, description=body.description, **lists)
    return told(entry_of(state, await profiles.save(state, made, overwrite=body.overwrite)), 201)


@router.post("/deactivate", dependencies=[requires("admin")], responses=answered(ServerStatus))
async def deactivate(request: Request) -> Response:
    """The base model answers from the next token on, unless a request says otherwise; → the status."""
    state: State = request.app.state.millm
    await started(state)
    await activate(state, None)
    return told(status_of(state))


@router.get("/{name}", dependencies=[requires("monitor")], responses=answered(ProfileTold))
async def get_profile(request: Request, name: Name) -> Response:
    """One profile, as a file has it."""
    state: State = request.app.state.millm
    return told(profile_told(state, state.profiles.stored(name)))


@router.put("/{name}", dependencies=[requires("admin")], responses=answered(ProfileEntry))
async def put_profile(request: Request, name: Name, body: Profile) -> Response:
    """Put another in its place, under that one's name. The active profile is applied anew: all of it, or nothing."""
    state: State = request.app.state.millm
    await started(state)
    return told(entry_of(state, await profiles.change(state, name, body)))


@router.delete("/{name}", dependencies=[requires("admin")], responses=answered(ProfileEntry))
async def delete_profile(
    request: Request,
    name: Name,
    force: Annotated[bool, Query(description="Also the active one, which is turned off.")] = False,
) -> Response:
    """Delete a profile; → what it was."""
    state: State = request.app.state.millm
    await started(state)
    was = entry_of(state, state.profiles.stored(name))
    await profiles.delete(state, name, force=force)
    return told(was)


@router.post("/{name}/rename", dependencies=[requires("admin")], responses=answered(ProfileEntry))
async def rename_profile(request: Request, name: Name, body: Rename) -> Response:
    """Give it another name. The active one stays active."""
    state: State = request.app.state.millm
    await started(state)
    renamed = state.profiles.find(name).model_copy(update={"name": body.name})
    return told(entry_of(state, await profiles.change(state, name, renamed)))


@router.post(
    "/{name}/duplicate", dependencies=[requires("admin")], status_code=201, responses=answered(ProfileEntry, 201)
)
async def duplicate_profile(request: Request, name: Name, body: Duplicate | None = None) -> Response:
    """Add the same under another name."""
    state: State = request.app.state.millm
    found = state.profiles.find(name)
    wanted = body.name if body and body.name else state.profiles.free_name(found.name)
    return told(entry_of(state, await profiles.add(state, found.model_copy(update={"name": wanted}))), 201)


@router.post("/{name}/activate", dependencies=[requires("admin")], responses=answered(ProfileEntry))
async def activate_named(request: Request, name: Name) -> Response:
    """Steer with it from the next token on, every request that does not say otherwise."""
    state: State = request.app.state.millm
    await started(state)
    await activate_profile(state, name)
    return told(entry_of(state, state.profiles.stored(name)))
