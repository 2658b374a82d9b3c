"""OpenAI's API under `/v1`: names and shapes are OpenAI's, everything behind them is not known here."""

from fastapi import APIRouter

from millm.openai import chat, completions, embeddings, models

router = APIRouter(prefix="/v1", tags=["openai"])
router.include_router(chat.router)
router.include_router(completions.router)
router.include_router(embeddings.router)
router.include_router(models.router)
