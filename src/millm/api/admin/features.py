"""`/api/features/inspect` and `/contrast`: finding features by texts in which they fire.

`/api/features`: what is known about an SAE's features, found by words or by number, and written down.
"""

import asyncio
import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, FiniteFloat, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from millm.api.admin.openapi import file_response, struct_response
from millm.api.admin.route import MAX_ID_LENGTH, AdminRoute, StrictBody, json_response
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
from millm.hub.labels import MAX_LABEL_LENGTH as LONGEST_LABEL
from millm.hub.labels import Label, read_jsonl
from millm.lifecycle.restore import ensure_loaded
from millm.lifecycle.saes import remove_label, store_labels
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.schema import ProfileName
from millm.protocol.request import ChatMessage, ChatRequest
from millm.state import State

inspection_router = APIRouter(prefix="/features", route_class=AdminRoute)
MAX_TEXTS = 64
"""A side."""
SaeField = Annotated[str | None, Field(max_length=MAX_ID_LENGTH, description="Default: the only SAE that is attached.")]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class InspectBody(StrictBody):
    """A text in one of three forms."""

    text: Annotated[str | None, Field(min_length=1)] = None
    messages: Annotated[
        list[ChatMessage] | None, Field(min_length=1, max_length=2048, description="Through the chat template.")
    ] = None
    input_ids: Annotated[list[TokenId] | None, Field(min_length=1, description="As they are.")] = None
    sae: SaeField = None
    top_k: Annotated[int, Field(ge=0, le=100, description="At each token.")] = 5
    features: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(max_length=128, description="To tell at every token.")
    ] = Field(default_factory=list)
    limit: Annotated[int, Field(ge=0, le=1000, description="Features over the whole text.")] = 50

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
    limit: Annotated[int, Field(ge=1, le=200, description="Features told of each direction.")] = 20
    make: Annotated[int, Field(ge=1, le=32, description="Features of the profile.")] = 3
    name: Annotated[ProfileName, Field(description="Of the profile.")] = "contrast"


@inspection_router.post("/inspect", dependencies=[requires("monitor")], responses=struct_response(Inspection))
async def inspect_text(request: Request, body: InspectBody) -> Response:
    """Which features fire on a text: at each token, and over all of it. The base model reads it, unsteered."""
    state: State = request.app.state.millm
    attached = await _ready_sae(state, body.sae)
    for place, index in enumerate(body.features):
        check_feature_index(attached, index, f"features.{place}")
    _check_top_k(attached, body.top_k)
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


@inspection_router.post("/contrast", dependencies=[requires("monitor")], responses=struct_response(Separators))
async def contrast_texts(request: Request, body: ContrastBody) -> Response:
    """Which features fire more on one set of texts than on the other, and a profile made of them (not saved)."""
    state: State = request.app.state.millm
    attached = await _ready_sae(state, body.sae)
    model = state.model_or_raise()
    texts = await asyncio.to_thread(_all_token_ids, model, body)
    found = await cancel_on_disconnect(request, survey_texts(state, attached, texts, _job_id("contrast")))
    sides = found[: len(body.a)], found[len(body.a) :]
    separations = await asyncio.to_thread(
        contrast, *sides, limit=max(body.limit, body.make), residual_norm=attached.facts.residual_norm
    )
    return json_response(
        build_separators(state, attached, separations, limit=body.limit, profile_features=body.make, name=body.name)
    )


async def _ready_sae(state: State, sae: str | None) -> AttachedSae:
    """The model is in memory. Raises ModelNotLoaded, or what `attached_sae` raises."""
    find_attached_sae(state, sae)
    await ensure_loaded(state, state.model_or_raise().name)
    return find_attached_sae(state, sae)


def _check_top_k(attached: AttachedSae, top_k: int) -> None:
    if top_k > attached.facts.features:
        raise InvalidRequest(f"`top_k` should be at most {attached.facts.features}.", param="top_k")


def _token_ids(model: LoadedModel, body: InspectBody) -> list[int]:
    """Raises InvalidRequest or ContextLengthExceeded."""
    if body.text is not None:
        return encode_text(model, body.text, "text")
    if body.messages is not None:
        chat = ChatRequest(model=model.name, messages=body.messages)
        return check_token_ids(model, render_prompt(model, chat, ToolConfig())[0].ids, "messages")
    return check_token_ids(model, body.input_ids or [], "input_ids")


def _all_token_ids(model: LoadedModel, body: ContrastBody) -> list[list[int]]:
    return [encode_text(model, text, _text_path(body, place)) for place, text in enumerate([*body.a, *body.b])]


def _text_path(body: ContrastBody, position: int) -> str:
    """Of a text in the body."""
    return f"a.{position}" if position < len(body.a) else f"b.{position - len(body.a)}"


def _job_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


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
