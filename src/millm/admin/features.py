"""`/api/features`: what is known about an SAE's features, found by words or by number, and written down."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, FiniteFloat, StringConstraints

from millm.access import requires
from millm.admin.answers import file_response, struct_response
from millm.admin.ids import MAX_ID_LENGTH, StrictBody
from millm.admin.route import AdminRoute, json_response
from millm.errors import InvalidImport
from millm.features.card import FeatureCard, build_feature_card, check_feature_index, find_attached_sae
from millm.features.search import FoundLabel, FoundLabels, PutLabels, label_match, search_labels_page
from millm.hub.labels import MAX_LABEL_LENGTH as LONGEST_LABEL
from millm.hub.labels import Label, read_jsonl
from millm.lifecycle.restore import ensure_loaded
from millm.lifecycle.saes import remove_label, store_labels
from millm.state import State

router = APIRouter(prefix="/features", route_class=AdminRoute)

SaeQuery = Annotated[str | None, Query(max_length=MAX_ID_LENGTH, description="Default: the only SAE that is attached.")]
FeatureIndex = Annotated[int, Path(ge=0, le=2**31 - 1)]


class LabelBody(StrictBody):
    """What somebody writes about a feature."""

    label: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_LABEL)]
    max_act: Annotated[
        FiniteFloat | None, Field(gt=0, description="The largest activation seen: the unit `max_act`.")
    ] = None


@router.get("/search", dependencies=[requires("monitor")], responses=struct_response(FoundLabels))
async def search_features(
    request: Request,
    q: Annotated[str, Query(max_length=LONGEST_LABEL, description="Words, or a number; empty: all labels.")] = "",
    sae: Annotated[
        str | None, Query(max_length=MAX_ID_LENGTH, description="Default: every SAE that is attached.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=10**7)] = 0,
) -> Response:
    """Features whose labels have every word, the best first: the label itself, beginnings of words, letters inside."""
    state: State = request.app.state.millm
    saes = sorted(state.saes) if sae is None and state.saes else [find_attached_sae(state, sae).facts.sae]
    return json_response(await asyncio.to_thread(search_labels_page, state.labels, saes, q, limit, offset))


@router.get("/labels", dependencies=[requires("monitor")], responses=file_response("application/jsonl"))
async def get_labels(request: Request, sae: SaeQuery = None) -> Response:
    """All labels of an SAE as JSONL, to keep, to share and to import again."""
    state: State = request.app.state.millm
    name = find_attached_sae(state, sae).facts.sae
    lines = await asyncio.to_thread(state.labels.export, name)
    return Response(
        lines, media_type="application/jsonl", headers={"Content-Disposition": 'attachment; filename="labels.jsonl"'}
    )


@router.post("/labels", dependencies=[requires("admin")], responses=struct_response(PutLabels))
async def post_labels(
    request: Request,
    sae: SaeQuery = None,
    source: Annotated[str, Query(max_length=64, description="Of the lines that name none.")] = "import",
) -> Response:
    """Lay labels over those that are known: JSONL, ours or Neuronpedia's. All of them, or none if a line is none."""
    state: State = request.app.state.millm
    attached = find_attached_sae(state, sae)
    document = await request.body()
    labels = await asyncio.to_thread(read_jsonl, document, source)
    if not labels:
        raise InvalidImport('the body holds no label; send lines such as {"index": 3, "label": "the sea"}')
    check_feature_index(attached, labels[-1].index, "index")
    await store_labels(state, attached.facts.sae, labels, source)
    return json_response(PutLabels(sae=attached.facts.sae, labels=len(labels)))


@router.get("/{index}", dependencies=[requires("monitor")], responses=struct_response(FeatureCard))
async def get_feature(request: Request, index: FeatureIndex, sae: SaeQuery = None) -> Response:
    """Its label, the tokens that it makes likelier, its neighbours, and strengths to begin with."""
    state: State = request.app.state.millm
    check_feature_index(find_attached_sae(state, sae), index, "index")
    await ensure_loaded(state, state.model_or_raise().name)
    return json_response(await build_feature_card(state, find_attached_sae(state, sae), index))


@router.put("/{index}/label", dependencies=[requires("admin")], responses=struct_response(FoundLabel))
async def put_label(request: Request, body: LabelBody, index: FeatureIndex, sae: SaeQuery = None) -> Response:
    """Write down what a feature means; its file stays as it is."""
    state: State = request.app.state.millm
    attached = find_attached_sae(state, sae)
    check_feature_index(attached, index, "index")
    label = Label(index, body.label, body.max_act, source="user", edited=time.time())
    await store_labels(state, attached.facts.sae, [label], "user")
    return json_response(label_match(attached.facts.sae, state.labels.get(attached.facts.sae, index) or label))


@router.delete("/{index}/label", dependencies=[requires("admin")], responses=struct_response(FoundLabel))
async def delete_label(request: Request, index: FeatureIndex, sae: SaeQuery = None) -> Response:
    """Take back what was written or imported; → what the SAE's own file says."""
    state: State = request.app.state.millm
    attached = find_attached_sae(state, sae)
    check_feature_index(attached, index, "index")
    left = await remove_label(state, attached.facts.sae, index)
    return json_response(label_match(attached.facts.sae, left or Label(index)))
