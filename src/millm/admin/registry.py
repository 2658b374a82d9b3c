"""`/api/registry`: the public SAEs that miLLM knows of, and the models that have some."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from millm.access import requires
from millm.admin.answers import list_response, struct_response
from millm.admin.route import AdminRoute, json_response
from millm.hub import catalog
from millm.hub.catalog import Site

registry_router = APIRouter(prefix="/registry", route_class=AdminRoute)

MAX_WORD_LENGTH = 200
"""Characters of a word that is searched for."""
SearchWord = Annotated[str | None, Query(max_length=MAX_WORD_LENGTH)]


@registry_router.get("/saes", dependencies=[requires("monitor")], responses=struct_response(catalog.RegistryPage))
async def search_saes(
    model: SearchWord = None,
    layer: Annotated[int | None, Query(ge=0, le=10_000)] = None,
    site: Site | None = None,
    width: Annotated[int | None, Query(ge=1, le=10**9, description="Features.")] = None,
    most_l0: Annotated[
        float | None, Query(ge=0, le=10**9, description="Features that are active at a token, at most.")
    ] = None,
    text: Annotated[str, Query(max_length=MAX_WORD_LENGTH, description="Found in the id or the release.")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=10**6)] = 0,
) -> Response:
    """Those that fit all that is asked for: how many there are, and `limit` of them from `offset` on."""
    found = await asyncio.to_thread(
        catalog.search_saes,
        model=model,
        layer=layer,
        site=site,
        width=width,
        most_l0=most_l0,
        text=text,
        limit=limit,
        offset=offset,
    )
    return json_response(found)


@registry_router.get(
    "/models", dependencies=[requires("monitor")], responses=list_response(catalog.RegistryModel, "models")
)
async def list_shelf() -> Response:
    """Models that have SAEs: how many, of which layers and widths."""
    return json_response({"models": await asyncio.to_thread(catalog.list_models)})
