"""What the OpenAPI document says of answers under `/api` and of events: the structs that they are, as JSON schemas."""

from typing import Any, get_args

import msgspec

from millm.admin.imported import Imported, ImportPreview
from millm.admin.monitor_told import Forgotten, MonitorState, RequestTold, Statistics
from millm.engine.messages import SaeFacts
from millm.events import Event
from millm.experiments.told import Calibration, Comparison, Swept
from millm.features.card import FeatureCard
from millm.features.found import FoundLabel, FoundLabels, PutLabels
from millm.features.inspecting import Inspection
from millm.features.separators import Separators
from millm.hardware import Hardware
from millm.hub.entries import Freed, ModelEntry, SaeEntry
from millm.hub.estimate import Estimate
from millm.hub.jobs import Job, Preview, RemoteModel
from millm.hub.registry import Found, ShelfModel
from millm.logs.recent import Line
from millm.monitor.rows import OpenRequest, RequestRow
from millm.profiles.entry import ProfileEntry, ProfilePage, ProfileTold
from millm.settings_told import Setting
from millm.status import ServerStatus, SteeringState

STRUCTS: tuple[type[msgspec.Struct], ...] = (
    ModelEntry, SaeEntry, Freed, Job, Preview, RemoteModel, Estimate, ServerStatus, SaeFacts, Found, ShelfModel,
    Hardware, Setting, Line,
    SteeringState, FeatureCard, FoundLabel, FoundLabels, PutLabels, Inspection, Separators,
    MonitorState, Statistics, OpenRequest, RequestRow, RequestTold, Forgotten,
    Comparison, Swept, Calibration,
    ProfileEntry, ProfilePage, ProfileTold,
    ImportPreview, Imported,
)  # fmt: skip

_PLACE = "#/components/schemas/{name}"

Responses = dict[int | str, dict[str, Any]]


def answered(struct: type[msgspec.Struct], status: int = 200) -> Responses:
    """The answer is one of these."""
    return {status: _json(_reference(struct), struct)}


def file(*media_types: str) -> Responses:
    """The answer is a file."""
    return {200: {"description": "The file.", "content": {media_type: {} for media_type in media_types}}}


def listed(struct: type[msgspec.Struct], name: str) -> Responses:
    """The answer is an object with a list of these."""
    these = {"type": "array", "items": _reference(struct)}
    return {200: _json({"type": "object", "properties": {name: these}, "required": [name]}, struct)}


def schemas() -> dict[str, Any]:
    """Of the structs, of the websocket's events, and of those that they hold, by their names."""
    told = msgspec.json.schema_components((*STRUCTS, *get_args(Event)), ref_template=_PLACE)[1]
    return {name: _whole(schema) for name, schema in told.items()}


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    """What has a default is still in every answer; what may be left out (`UnsetType`) has none."""
    properties = schema.get("properties", {})
    always = [name for name in properties if name in schema.get("required", []) or "default" in properties[name]]
    return schema | {"required": always} if always else schema


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    assert struct in STRUCTS, struct
    return {"$ref": _PLACE.format(name=struct.__name__)}


def _json(schema: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
    told = struct.__doc__ or f"{struct.__name__}."
    return {"description": told.splitlines()[0], "content": {"application/json": {"schema": schema}}}
