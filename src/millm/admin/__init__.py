"""miLLM's own API under `/api`: the library, what is loaded and attached, what steers it, what runs.

For the terminal, the browser and scripts. Each route says which scope it needs (`millm.access`).
"""

from fastapi import APIRouter

from millm.admin import (
    attachments,
    discovery,
    events,
    experiments,
    features,
    hardware,
    jobs,
    loading,
    logs,
    models,
    monitor,
    profile_files,
    profiles,
    queue,
    registry,
    requests,
    saes,
    settings,
    status,
    steering,
    tickets,
)

router = APIRouter(prefix="/api", tags=["admin"])
for part in (
    status, loading, models, saes, attachments, steering, profile_files, profiles, experiments, discovery, features,
    monitor, requests, queue, jobs, registry, hardware, settings, logs, events, tickets,
):  # fmt: skip
    router.include_router(part.router)
