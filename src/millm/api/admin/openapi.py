"""What the OpenAPI document says of answers under `/api` and of events: the structs that they are, as JSON schemas."""

from typing import Any, get_args

import msgspec

from millm.api.admin.schemas import (
    DeletedRequests,
    ImportPreview,
    ImportResponse,
    MonitorState,
    RequestDetail,
    Statistics,
)
from millm.engine.messages import SaeFacts
from millm.events import Event, RequestRecord
from millm.experiments.schemas import Comparison, SteeringCalibration, SweepResult
from millm.features.card import FeatureCard
from millm.features.search import FoundLabel, FoundLabels, Inspection, PutLabels, Separators
from millm.hardware import Hardware
from millm.hub.catalog import RegistryModel, RegistryPage
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.jobs import DownloadJob, DownloadPreview, RemoteModel
from millm.hub.memory_estimate import Estimate
from millm.logs.recent import LogEntry
from millm.profiles.store import ProfileDetail, ProfileEntry, ProfilePage
from millm.settings import Setting
from millm.status import ServerStatus, SteeringState

STRUCTS: tuple[type[msgspec.Struct], ...] = (
    ModelEntry, SaeEntry, DeletionResult, DownloadJob, DownloadPreview, RemoteModel, Estimate, ServerStatus, SaeFacts, RegistryPage, RegistryModel,
    Hardware, Setting, LogEntry,
    SteeringState, FeatureCard, FoundLabel, FoundLabels, PutLabels, Inspection, Separators,
    MonitorState, Statistics, RequestRecord, RequestDetail, DeletedRequests,
    Comparison, SweepResult, SteeringCalibration,
    ProfileEntry, ProfilePage, ProfileDetail,
    ImportPreview, ImportResponse,
)  # fmt: skip
_REF_TEMPLATE = "#/components/schemas/{name}"
Responses = dict[int | str, dict[str, Any]]


def struct_response(struct: type[msgspec.Struct], status: int = 200) -> Responses:
    """The answer is one of these."""
    return {status: _json_content(_reference(struct), struct)}


def file_response(*media_types: str) -> Responses:
    """The answer is a file."""
    return {200: {"description": "The file.", "content": {media_type: {} for media_type in media_types}}}


def list_response(struct: type[msgspec.Struct], name: str) -> Responses:
    """The answer is an object with a list of these."""
    these = {"type": "array", "items": _reference(struct)}
    return {200: _json_content({"type": "object", "properties": {name: these}, "required": [name]}, struct)}


def component_schemas() -> dict[str, Any]:
    """Of the structs, of the websocket's events, and of those that they hold, by their names."""
    told = msgspec.json.schema_components((*STRUCTS, *get_args(Event)), ref_template=_REF_TEMPLATE)[1]
    return {name: _mark_required(schema) for name, schema in told.items()}


def _mark_required(schema: dict[str, Any]) -> dict[str, Any]:
    """What has a default is still in every answer; what may be left out (`UnsetType`) has none."""
    properties = schema.get("properties", {})
    always = [name for name in properties if name in schema.get("required", []) or "default" in properties[name]]
    return schema | {"required": always} if always else schema


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    assert struct in STRUCTS, struct
    return {"$ref": _REF_TEMPLATE.format(name=struct.__name__)}


def _json_content(schema: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
    told = struct.__doc__ or f"{struct.__name__}."
    return {"description": told.splitlines()[0], "content": {"application/json": {"schema": schema}}}
