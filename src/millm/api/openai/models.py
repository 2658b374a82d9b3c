"""`GET /v1/models`: the loaded model, alone and with each profile, so that clients can list them."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from millm.errors import ModelNotFound
from millm.lifecycle.selection import ModelCard, library_cards, model_cards
from millm.state import State

router = APIRouter()


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """All values for `model`."""
    return {"object": "list", "data": [_entry(card) for card in await _cards(request.app.state.millm)]}


@router.get("/models/{model:path}")
async def retrieve_model(model: str, request: Request) -> dict[str, Any]:
    """One model; ids may contain slashes."""
    for card in await _cards(request.app.state.millm):
        if card.id == model:
            return _entry(card)
    raise ModelNotFound(f"The model `{model[:128]}` does not exist", param="model")


async def _cards(state: State) -> list[ModelCard]:
    """The loaded model, and those of the library that a request may load."""
    others = await asyncio.to_thread(library_cards, state) if state.settings.on_demand == "auto" else []
    return [*model_cards(state), *others]


def _entry(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": "millm",
        "name": card.name,
        "millm": {"profile": card.profile, "description": card.description},
    }
