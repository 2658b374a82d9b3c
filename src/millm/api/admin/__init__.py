"""miLLM's admin API under `/api`, for the CLI, the web page and scripts. Each route declares the scope it needs."""

from fastapi import APIRouter

from millm.api.admin import events, experiments, features, models, monitor, profiles, saes, steering, system

router = APIRouter(prefix="/api", tags=["admin"])
for part in (
    system.router,
    models.router,
    saes.router,
    saes.attachments_router,
    steering.router,
    profiles.router,
    experiments.router,
    features.router,
    monitor.router,
    monitor.requests_router,
    system.queue_router,
    system.jobs_router,
    saes.registry_router,
    system.hardware_router,
    system.settings_router,
    system.logs_router,
    events.router,
    system.tickets_router,
):
    router.include_router(part)
