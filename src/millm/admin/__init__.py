"""miLLM's own API under `/api`: what runs, and what steers it. For the terminal, the browser and scripts.

Each route says which scope it needs (`millm.access`).
"""

from fastapi import APIRouter

from millm.admin import events, status, steering, tickets

router = APIRouter(prefix="/api", tags=["admin"])
router.include_router(status.router)
router.include_router(steering.router)
router.include_router(events.router)
router.include_router(tickets.router)
