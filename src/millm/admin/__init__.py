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
    status.router,
    loading.loading_router,
    models.router,
    saes.router,
    attachments.attachments_router,
    steering.router,
    profile_files.profile_files_router,
    profiles.router,
    experiments.router,
    discovery.inspection_router,
    features.router,
    monitor.router,
    requests.requests_router,
    queue.queue_router,
    jobs.jobs_router,
    registry.registry_router,
    hardware.hardware_router,
    settings.settings_router,
    logs.logs_router,
    events.router,
    tickets.tickets_router,
):
    router.include_router(part)
