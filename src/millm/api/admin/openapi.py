"""OpenAPI schemas of the responses under `/api` and of the events, generated from their structs."""

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
    ModelEntry, SaeEntry, DeletionResult, DownloadJob, DownloadPreview, RemoteModel, Estimate, ServerStatus, SaeFacts,
    RegistryPage, RegistryModel, Hardware, Setting, LogEntry,
    SteeringState, FeatureCard, FoundLabel, FoundLabels, PutLabels, Inspection, Separators,
    MonitorState, Statistics, RequestRecord, RequestDetail, DeletedRequests,
    Comparison, SweepResult, SteeringCalibration,
    ProfileEntry, ProfilePage, ProfileDetail,
    ImportPreview, ImportResponse,
)  # fmt: skip
_REF_TEMPLATE = "#/components/schemas/{name}"
Responses = dict[int | str, dict[str, Any]]


def struct_response(struct: type[msgspec.Struct], status: int = 200) -> Responses:
    """A JSON response of this struct."""
    return {status: _json_content(_reference(struct), struct)}


def file_response(*media_types: str) -> Responses:
    """A file as the response."""
    return {200: {"description": "The file.", "content": {media_type: {} for media_type in media_types}}}


def list_response(struct: type[msgspec.Struct], name: str) -> Responses:
    """A JSON response with a list of structs in the field `name`."""
    items = {"type": "array", "items": _reference(struct)}
    return {200: _json_content({"type": "object", "properties": {name: items}, "required": [name]}, struct)}


def component_schemas() -> dict[str, Any]:
    """Schemas by name, of all structs, events and the structs inside them."""
    schemas = msgspec.json.schema_components((*STRUCTS, *get_args(Event)), ref_template=_REF_TEMPLATE)[1]
    return {name: _mark_required(schema) for name, schema in schemas.items()}


def _mark_required(schema: dict[str, Any]) -> dict[str, Any]:
    """Fields with a default are in every response; optional ones (`UnsetType`) have no default."""
    properties = schema.get("properties", {})
    always = [name for name in properties if name in schema.get("required", []) or "default" in properties[name]]
    return schema | {"required": always} if always else schema


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    assert struct in STRUCTS, struct
    return {"$ref": _REF_TEMPLATE.format(name=struct.__name__)}


def _json_content(schema: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
    text = struct.__doc__ or f"{struct.__name__}."
    return {"description": text.splitlines()[0], "content": {"application/json": {"schema": schema}}}
