"""miLLM's own API under `/api`: what runs, and what steers it. For the terminal, the browser and scripts."""

from fastapi import APIRouter

from millm.admin import status, steering

router = APIRouter(prefix="/api", tags=["admin"])
router.include_router(status.router)
router.include_router(steering.router)
