"""miLLM's own API under `/api`: the library, what is loaded and attached, what steers it, what runs.

For the terminal, the browser and scripts. Each route says which scope it needs (`millm.access`).
"""

from fastapi import APIRouter

from millm.api.admin import events, experiments, features, models, monitor, profiles, saes, steering, system
from millm.api.admin import features as discovery
from millm.api.admin import models as loading
from millm.api.admin import monitor as requests
from millm.api.admin import profiles as profile_files
from millm.api.admin import saes as attachments
from millm.api.admin import saes as registry

router = APIRouter(prefix="/api", tags=["admin"])
for part in (
    system.router,
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
    system.queue_router,
    system.jobs_router,
    registry.registry_router,
    system.hardware_router,
    system.settings_router,
    system.logs_router,
    events.router,
    system.tickets_router,
):
    router.include_router(part)
