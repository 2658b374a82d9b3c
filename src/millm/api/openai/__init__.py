"""OpenAI's API under `/v1`."""

from fastapi import APIRouter

from millm.api.dependencies import requires
from millm.api.openai import chat, completions, embeddings, models
from millm.api.openai.responses import route as responses

router = APIRouter(prefix="/v1", tags=["openai"], dependencies=[requires("infer")])
router.include_router(chat.router)
router.include_router(completions.router)
router.include_router(embeddings.router)
router.include_router(models.router)
router.include_router(responses.router)
