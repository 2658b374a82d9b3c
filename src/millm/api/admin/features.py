"""`/api/features`: find features by text, contrast or label; feature cards; editing, import and export of labels."""

import asyncio
import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, FiniteFloat, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from millm.api.admin.openapi import file_response, struct_response
from millm.api.admin.route import MAX_ID_LENGTH, AdminRoute, ServerState, StrictBody, json_response
from millm.api.dependencies import requires
from millm.api.sse import cancel_on_disconnect
from millm.errors import InvalidImport, InvalidRequest
from millm.features.card import FeatureCard, build_feature_card, check_feature_index, find_attached_sae
from millm.features.search import (
    MAX_FIRINGS,
    FoundLabel,
    FoundLabels,
    Inspection,
    PutLabels,
    Separators,
    build_separators,
    check_token_ids,
    contrast,
    encode_text,
    inspect,
    label_match,
    search_labels_page,
    survey_texts,
)
from millm.generation.chat import render_prompt
from millm.generation.tools import ToolConfig
from millm.hub.labels import MAX_LABEL_LENGTH, Label, read_jsonl
from millm.lifecycle.restore import ensure_loaded
from millm.lifecycle.saes import remove_label, store_labels
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.schema import ProfileName
from millm.protocol.request import ChatMessage, ChatRequest
from millm.state import State

router = APIRouter(prefix="/features", route_class=AdminRoute)
MAX_TEXTS = 64
"""Texts of each set."""
SaeField = Annotated[str | None, Field(max_length=MAX_ID_LENGTH, description="Default: the only SAE that is attached.")]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
SaeQuery = Annotated[str | None, Query(max_length=MAX_ID_LENGTH, description="Default: the only SAE that is attached.")]
FeatureIndex = Annotated[int, Path(ge=0, le=2**31 - 1)]


class InspectBody(StrictBody):
    """A text as a string, chat messages or token ids."""

    text: Annotated[str | None, Field(min_length=1)] = None
    messages: Annotated[
        list[ChatMessage] | None, Field(min_length=1, max_length=2048, description="Through the chat template.")
    ] = None
    input_ids: Annotated[list[TokenId] | None, Field(min_length=1, description="As they are.")] = None
    sae: SaeField = None
    top_k: Annotated[int, Field(ge=0, le=100, description="At each token.")] = 5
    features: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(max_length=128, description="Reported at every token.")
    ] = Field(default_factory=list)
    limit: Annotated[int, Field(ge=0, le=1000, description="Features summarised over the text.")] = 50

    @model_validator(mode="after")
    def _one_form(self) -> "InspectBody":
        if sum(given is not None for given in (self.text, self.messages, self.input_ids)) != 1:
            raise PydanticCustomError("one_form", "Input should have one of `text`, `messages` and `input_ids`")
        if len(set(self.features)) < len(self.features):
            raise PydanticCustomError("features_twice", "`features` should name each feature once")
        return self


class ContrastBody(StrictBody):
    """Two sets of texts."""

    a: Texts
    b: Texts
    sae: SaeField = None
    limit: Annotated[int, Field(ge=1, le=200, description="Features reported per direction.")] = 20
    make: Annotated[int, Field(ge=1, le=32, description="Features of the profile.")] = 3
    name: Annotated[ProfileName, Field(description="Of the profile.")] = "contrast"


@router.post("/inspect", dependencies=[requires("monitor")], responses=struct_response(Inspection))
async def inspect_text(request: Request, state: ServerState, body: InspectBody) -> Response:
    """The features that fire on a text, per token and overall, without steering."""
    attached = await _ready_sae(state, body.sae)
    for position, index in enumerate(body.features):
        check_feature_index(attached, index, f"features.{position}")
    if body.top_k > attached.facts.features:
        raise InvalidRequest(f"`top_k` should be at most {attached.facts.features}.", param="top_k")
    ids = await asyncio.to_thread(_token_ids, state.model_or_raise(), body)
    if len(ids) * body.top_k > MAX_FIRINGS:
        raise InvalidRequest(
            f"`top_k` × {len(ids):,} tokens is more than {MAX_FIRINGS:,}; ask for a `top_k` of at most"
            f" {MAX_FIRINGS // len(ids)}",
            param="top_k",
        )
    work = inspect(
        state, attached, ids, top_k=body.top_k, features=body.features, limit=body.limit, job_id=_job_id("inspect")
    )
    return json_response(await cancel_on_disconnect(request, work))


@router.post("/contrast", dependencies=[requires("monitor")], responses=struct_response(Separators))
async def contrast_texts(request: Request, state: ServerState, body: ContrastBody) -> Response:
    """The features that fire more on one set of texts than on the other, and a profile of them (not stored)."""
    attached = await _ready_sae(state, body.sae)
    model = state.model_or_raise()
    texts = await asyncio.to_thread(_all_token_ids, model, body)
    scanned = await cancel_on_disconnect(request, survey_texts(state, attached, texts, _job_id("contrast")))
    sides = scanned[: len(body.a)], scanned[len(body.a) :]
    separations = await asyncio.to_thread(
        contrast, *sides, limit=max(body.limit, body.make), residual_norm=attached.facts.residual_norm
    )
    return json_response(
        build_separators(state, attached, separations, limit=body.limit, profile_features=body.make, name=body.name)
    )


async def _ready_sae(state: State, sae: str | None) -> AttachedSae:
    """The SAE, with the model in memory. Raises ModelNotLoaded, or what `find_attached_sae` raises."""
    find_attached_sae(state, sae)
    await ensure_loaded(state, state.model_or_raise().name)
    return find_attached_sae(state, sae)


def _token_ids(model: LoadedModel, body: InspectBody) -> list[int]:
    if body.text is not None:
        return encode_text(model, body.text, "text")
    if body.messages is not None:
        chat = ChatRequest(model=model.name, messages=body.messages)
        return check_token_ids(model, render_prompt(model, chat, ToolConfig())[0].ids, "messages")
    return check_token_ids(model, body.input_ids or [], "input_ids")


def _all_token_ids(model: LoadedModel, body: ContrastBody) -> list[list[int]]:
    sides = (("a", body.a), ("b", body.b))
    return [encode_text(model, text, f"{name}.{number}") for name, side in sides for number, text in enumerate(side)]


def _job_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


class LabelBody(StrictBody):
    """A user's label of a feature."""

    label: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_LABEL_LENGTH)]
    max_act: Annotated[
        FiniteFloat | None, Field(gt=0, description="The largest activation seen: the unit `max_act`.")
    ] = None


@router.get("/search", dependencies=[requires("monitor")], responses=struct_response(FoundLabels))
async def search_features(
    state: ServerState,
    q: Annotated[str, Query(max_length=MAX_LABEL_LENGTH, description="Words, or a number; empty: all labels.")] = "",
    sae: Annotated[
        str | None, Query(max_length=MAX_ID_LENGTH, description="Default: every SAE that is attached.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=10**7)] = 0,
) -> Response:
    """Features whose labels contain every word, best match first: equal labels, then word beginnings, then others."""
    saes = sorted(state.saes) if sae is None and state.saes else [find_attached_sae(state, sae).facts.sae]
    return json_response(await asyncio.to_thread(search_labels_page, state.labels, saes, q, limit, offset))


@router.get("/labels", dependencies=[requires("monitor")], responses=file_response("application/jsonl"))
async def get_labels(state: ServerState, sae: SaeQuery = None) -> Response:
    """All labels of an SAE as JSONL, which can be imported again."""
    name = find_attached_sae(state, sae).facts.sae
    lines = await asyncio.to_thread(state.labels.export, name)
    return Response(
        lines, media_type="application/jsonl", headers={"Content-Disposition": 'attachment; filename="labels.jsonl"'}
    )


@router.post("/labels", dependencies=[requires("admin")], responses=struct_response(PutLabels))
async def post_labels(
    request: Request,
    state: ServerState,
    sae: SaeQuery = None,
    source: Annotated[str, Query(max_length=64, description="Of the lines that name none.")] = "import",
) -> Response:
    """Import labels as JSONL, miLLM's or Neuronpedia's: all of them, or none where a line is invalid."""
    attached = find_attached_sae(state, sae)
    document = await request.body()
    labels = await asyncio.to_thread(read_jsonl, document, source)
    if not labels:
        raise InvalidImport('the body holds no label; send lines such as {"index": 3, "label": "the sea"}')
    check_feature_index(attached, labels[-1].index, "index")
    await store_labels(state, attached.facts.sae, labels, source)
    return json_response(PutLabels(sae=attached.facts.sae, labels=len(labels)))


@router.get("/{index}", dependencies=[requires("monitor")], responses=struct_response(FeatureCard))
async def get_feature(state: ServerState, index: FeatureIndex, sae: SaeQuery = None) -> Response:
    """The feature's label, promoted tokens, neighbours, and strengths to begin with."""
    check_feature_index(find_attached_sae(state, sae), index, "index")
    await ensure_loaded(state, state.model_or_raise().name)
    return json_response(await build_feature_card(state, find_attached_sae(state, sae), index))


@router.put("/{index}/label", dependencies=[requires("admin")], responses=struct_response(FoundLabel))
async def put_label(state: ServerState, body: LabelBody, index: FeatureIndex, sae: SaeQuery = None) -> Response:
    """Set a feature's label; the SAE's own file is not changed."""
    attached = find_attached_sae(state, sae)
    check_feature_index(attached, index, "index")
    label = Label(index, body.label, body.max_act, source="user", edited=time.time())
    await store_labels(state, attached.facts.sae, [label], "user")
    return json_response(label_match(attached.facts.sae, state.labels.get(attached.facts.sae, index) or label))


@router.delete("/{index}/label", dependencies=[requires("admin")], responses=struct_response(FoundLabel))
async def delete_label(state: ServerState, index: FeatureIndex, sae: SaeQuery = None) -> Response:
    """Delete an edited or imported label; returns that of the SAE's own file."""
    attached = find_attached_sae(state, sae)
    check_feature_index(attached, index, "index")
    remaining = await remove_label(state, attached.facts.sae, index)
    return json_response(label_match(attached.facts.sae, remaining or Label(index)))
