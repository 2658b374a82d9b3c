"""`/api/features`: what is known about an SAE's features, found by words or by number, and written down."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, FiniteFloat, StringConstraints

from millm.access import requires
from millm.admin.answers import answered, file
from millm.admin.ids import LONGEST, Body
from millm.admin.route import AdminRoute, told
from millm.errors import InvalidImport
from millm.features.attached import attached_sae, check_index
from millm.features.card import FeatureCard, card
from millm.features.found import FoundLabel, FoundLabels, PutLabels, found_labels, label_told
from millm.hub.label_lines import LONGEST as LONGEST_LABEL
from millm.hub.label_lines import Label, read_jsonl
from millm.lifecycle.labels import relabelled, unlabelled
from millm.lifecycle.on_demand import ready_for
from millm.state import State

router = APIRouter(prefix="/features", route_class=AdminRoute)

AttachedName = Annotated[str | None, Query(max_length=LONGEST, description="Default: the only SAE that is attached.")]
Index = Annotated[int, Path(ge=0, le=2**31 - 1)]


class WrittenLabel(Body):
    """What somebody writes about a feature."""

    label: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_LABEL)]
    max_act: Annotated[
        FiniteFloat | None, Field(gt=0, description="The largest activation seen: the unit `max_act`.")
    ] = None


@router.get("/search", dependencies=[requires("monitor")], responses=answered(FoundLabels))
async def search_features(
    request: Request,
    q: Annotated[str, Query(max_length=LONGEST_LABEL, description="Words, or a number; empty: all labels.")] = "",
    sae: Annotated[str | None, Query(max_length=LONGEST, description="Default: every SAE that is attached.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=10**7)] = 0,
) -> Response:
    """Features whose labels have every word, the best first: the label itself, beginnings of words, letters inside."""
    state: State = request.app.state.millm
    saes = sorted(state.saes) if sae is None and state.saes else [attached_sae(state, sae).facts.sae]
    return told(await asyncio.to_thread(found_labels, state.labels, saes, q, limit, offset))


@router.get("/labels", dependencies=[requires("monitor")], responses=file("application/jsonl"))
async def get_labels(request: Request, sae: AttachedName = None) -> Response:
    """All labels of an SAE as JSONL, to keep, to share and to import again."""
    state: State = request.app.state.millm
    name = attached_sae(state, sae).facts.sae
    lines = await asyncio.to_thread(state.labels.export, name)
    return Response(
        lines, media_type="application/jsonl", headers={"Content-Disposition": 'attachment; filename="labels.jsonl"'}
    )


@router.post("/labels", dependencies=[requires("admin")], responses=answered(PutLabels))
async def post_labels(
    request: Request,
    sae: AttachedName = None,
    source: Annotated[str, Query(max_length=64, description="Of the lines that name none.")] = "import",
) -> Response:
    """Lay labels over those that are known: JSONL, ours or Neuronpedia's. All of them, or none if a line is none."""
    state: State = request.app.state.millm
    attached = attached_sae(state, sae)
    document = await request.body()
    labels = await asyncio.to_thread(read_jsonl, document, source)
    if not labels:
        raise InvalidImport('the body holds no label; send lines such as {"index": 3, "label": "the sea"}')
    check_index(attached, labels[-1].index, "index")
    await relabelled(state, attached.facts.sae, labels, source)
    return told(PutLabels(sae=attached.facts.sae, labels=len(labels)))


@router.get("/{index}", dependencies=[requires("monitor")], responses=answered(FeatureCard))
async def get_feature(request: Request, index: Index, sae: AttachedName = None) -> Response:
    """Its label, the tokens that it makes likelier, its neighbours, and strengths to begin with."""
    state: State = request.app.state.millm
    check_index(attached_sae(state, sae), index, "index")
    await ready_for(state, state.model_or_raise().name)
    return told(await card(state, attached_sae(state, sae), index))


@router.put("/{index}/label", dependencies=[requires("admin")], responses=answered(FoundLabel))
async def put_label(request: Request, body: WrittenLabel, index: Index, sae: AttachedName = None) -> Response:
    """Write down what a feature means; its file stays as it is."""
    state: State = request.app.state.millm
    attached = attached_sae(state, sae)
    check_index(attached, index, "index")
    label = Label(index, body.label, body.max_act, source="user", edited=time.time())
    await relabelled(state, attached.facts.sae, [label], "user")
    return told(label_told(attached.facts.sae, state.labels.of(attached.facts.sae, index) or label))


@router.delete("/{index}/label", dependencies=[requires("admin")], responses=answered(FoundLabel))
async def delete_label(request: Request, index: Index, sae: AttachedName = None) -> Response:
    """Take back what was written or imported; → what the SAE's own file says."""
    state: State = request.app.state.millm
    attached = attached_sae(state, sae)
    check_index(attached, index, "index")
    left = await unlabelled(state, attached.facts.sae, index)
    return told(label_told(attached.facts.sae, left or Label(index)))
