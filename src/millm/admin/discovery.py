"""`/api/features/inspect` and `/contrast`: finding features by texts in which they fire."""

import asyncio
import uuid
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from millm.access import requires
from millm.admin.answers import answered
from millm.admin.ids import LONGEST, Body
from millm.admin.route import AdminRoute, told
from millm.errors import InvalidRequest
from millm.features.attached import attached_sae, check_index
from millm.features.contrasting import contrast
from millm.features.inspecting import MOST_FIRINGS, Inspection, inspect
from millm.features.separators import Separators, separators
from millm.features.texts import check_ids, ids_of, surveyed
from millm.lifecycle.on_demand import ready_for
from millm.openai.disconnect import unless_gone
from millm.openai.prompting import write_down
from millm.openai.schemas.chat import ChatMessage, ChatRequest
from millm.openai.tools import Tooling
from millm.profiles.names import ProfileName
from millm.state import AttachedSae, LoadedModel, State

router = APIRouter(prefix="/features", route_class=AdminRoute)

MOST_TEXTS = 64
"""A side."""

AttachedName = Annotated[str | None, Field(max_length=LONGEST, description="Default: the only SAE that is attached.")]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MOST_TEXTS)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Inspected(Body):
    """A text in one of three forms."""

    text: Annotated[str | None, Field(min_length=1)] = None
    messages: Annotated[
        list[ChatMessage] | None, Field(min_length=1, max_length=2048, description="Through the chat template.")
    ] = None
    input_ids: Annotated[list[TokenId] | None, Field(min_length=1, description="As they are.")] = None
    sae: AttachedName = None
    top_k: Annotated[int, Field(ge=0, le=100, description="At each token.")] = 5
    features: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(max_length=128, description="To tell at every token.")
    ] = Field(default_factory=list)
    limit: Annotated[int, Field(ge=0, le=1000, description="Features over the whole text.")] = 50

    @model_validator(mode="after")
    def _one_form(self) -> "Inspected":
        if sum(given is not None for given in (self.text, self.messages, self.input_ids)) != 1:
            raise PydanticCustomError("one_form", "Input should have one of `text`, `messages` and `input_ids`")
        if len(set(self.features)) < len(self.features):
            raise PydanticCustomError("features_twice", "`features` should name each feature once")
        return self


class Contrasted(Body):
    """Two sets of texts."""

    a: Texts
    b: Texts
    sae: AttachedName = None
    limit: Annotated[int, Field(ge=1, le=200, description="Features told of each direction.")] = 20
    make: Annotated[int, Field(ge=1, le=32, description="Features of the profile.")] = 3
    name: Annotated[ProfileName, Field(description="Of the profile.")] = "contrast"


@router.post("/inspect", dependencies=[requires("monitor")], responses=answered(Inspection))
async def inspect_text(request: Request, body: Inspected) -> Response:
    """Which features fire on a text: at each token, and over all of it. The base model reads it, unsteered."""
    state: State = request.app.state.millm
    attached = await _ready(state, body.sae)
    for place, index in enumerate(body.features):
        check_index(attached, index, f"features.{place}")
    _check_top_k(attached, body.top_k)
    ids = await asyncio.to_thread(_ids, state.model_or_raise(), body)
    if len(ids) * body.top_k > MOST_FIRINGS:
        raise InvalidRequest(
            f"`top_k` × {len(ids):,} tokens is more than {MOST_FIRINGS:,}; ask for a `top_k` of at most"
            f" {MOST_FIRINGS // len(ids)}",
            param="top_k",
        )
    work = inspect(
        state, attached, ids, top_k=body.top_k, features=body.features, limit=body.limit, job_id=_job_id("inspect")
    )
    return told(await unless_gone(request, work))


@router.post("/contrast", dependencies=[requires("monitor")], responses=answered(Separators))
async def contrast_texts(request: Request, body: Contrasted) -> Response:
    """Which features fire more on one set of texts than on the other, and a profile made of them (not saved)."""
    state: State = request.app.state.millm
    attached = await _ready(state, body.sae)
    model = state.model_or_raise()
    texts = await asyncio.to_thread(_all_ids, model, body)
    found = await unless_gone(request, surveyed(state, attached, texts, _job_id("contrast")))
    sides = found[: len(body.a)], found[len(body.a) :]
    separations = await asyncio.to_thread(
        contrast, *sides, limit=max(body.limit, body.make), residual_norm=attached.facts.residual_norm
    )
    return told(separators(state, attached, separations, limit=body.limit, make=body.make, name=body.name))


async def _ready(state: State, sae: str | None) -> AttachedSae:
    """The model is in memory. Raises ModelNotLoaded, or what `attached_sae` raises."""
    attached_sae(state, sae)
    await ready_for(state, state.model_or_raise().name)
    return attached_sae(state, sae)


def _check_top_k(attached: AttachedSae, top_k: int) -> None:
    if top_k > attached.facts.features:
        raise InvalidRequest(f"`top_k` should be at most {attached.facts.features}.", param="top_k")


def _ids(model: LoadedModel, body: Inspected) -> list[int]:
    """Raises InvalidRequest or ContextLengthExceeded."""
    if body.text is not None:
        return ids_of(model, body.text, "text")
    if body.messages is not None:
        chat = ChatRequest(model=model.name, messages=body.messages)
        return check_ids(model, write_down(model, chat, Tooling()).prompt.ids, "messages")
    return check_ids(model, body.input_ids or [], "input_ids")


def _all_ids(model: LoadedModel, body: Contrasted) -> list[list[int]]:
    return [ids_of(model, text, _place(body, place)) for place, text in enumerate([*body.a, *body.b])]


def _place(body: Contrasted, place: int) -> str:
    """Of a text in the body."""
    return f"a.{place}" if place < len(body.a) else f"b.{place - len(body.a)}"


def _job_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"
