"""`GET /v1/models`: the loaded model, and again with each profile, so that any client's menu can pick one."""

from typing import Any

from fastapi import APIRouter, Request

from millm.errors import ModelNotFound
from millm.profiles.selection import ModelCard, model_cards

router = APIRouter()


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """Everything that can be asked for as `model`."""
    return {"object": "list", "data": [_entry(card) for card in model_cards(request.app.state.millm)]}


@router.get("/models/{model:path}")
async def retrieve_model(model: str, request: Request) -> dict[str, Any]:
    """One entry of the list; ids may contain slashes."""
    for card in model_cards(request.app.state.millm):
        if card.id == model:
            return _entry(card)
    raise ModelNotFound(f"The model `{model[:128]}` does not exist", param="model")


def _entry(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": "millm",
        "name": card.name,
        "millm": {"profile": card.profile, "description": card.description},
    }
