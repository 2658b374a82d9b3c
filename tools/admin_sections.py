"""The sections on `/api` of the API page: routes, bodies and answers, read from the code."""

from collections.abc import Iterable
from types import NoneType
from typing import get_args

import msgspec
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel

from millm.api.admin import experiments, features, models, monitor, profiles, saes, steering, system
from millm.api.admin.features import ContrastBody, InspectBody, LabelBody
from millm.api.admin.models import EstimateBody, Load
from millm.api.admin.monitor import MonitorBody
from millm.api.admin.openapi import STRUCTS
from millm.api.admin.profiles import Duplicate, Rename, Save
from millm.api.admin.route import Download
from millm.api.admin.saes import Attach
from millm.api.admin.steering import FeatureRef, VersionBody
from millm.api.dependencies import ScopeDependency
from millm.experiments.schemas import CalibrateRequest, CompareRequest, SweepRequest
from tools.field_tables import of_model, of_struct, table, with_parts

LIBRARY_LEAD = (
    "Files on disk, downloads, and what is loaded. An `id` is `owner/name` (`@revision` unless it is `main`), for an"
    " SAE `owner/name/path/inside`; imported files and those that ship with miLLM have no slash. Long operations"
    " continue when the client disconnects: downloads are jobs, and `/api/events` reports their progress. Every key has"
    " scope `monitor`; the admin key has `admin`, or the API key if no admin key is set."
)

STEERING_LEAD = (
    "Profiles, the active steering, import and export: [profiles.md](profiles.md) is the contract. Profile names in an"
    " address are percent-encoded."
)
WATCHING_LEAD = (
    "The watch list, the history of requests, feature cards, and experiments with steering. `compare` and `sweep` are"
    " streams of server-sent events unless `stream` is false; disconnecting cancels them. How to use them:"
    " [monitoring.md](monitoring.md)."
)

SECTIONS: tuple[tuple[str, str, tuple[APIRouter, ...], tuple[type[BaseModel], ...]], ...] = (
    (
        "The library",
        LIBRARY_LEAD,
        (
            models.router,
            saes.router,
            saes.attachments_router,
            system.jobs_router,
            saes.registry_router,
            system.router,
            system.hardware_router,
            system.logs_router,
        ),
        (Download, Load, EstimateBody, Attach),
    ),
    (
        "Profiles and the active steering",
        STEERING_LEAD,
        (steering.router, profiles.router),
        (FeatureRef, VersionBody, Save, Rename, Duplicate),
    ),
    (
        "Monitoring, features and experiments",
        WATCHING_LEAD,
        (monitor.router, monitor.requests_router, features.router, experiments.router),
        (MonitorBody, LabelBody, InspectBody, ContrastBody, CompareRequest, SweepRequest, CalibrateRequest),
    ),
)
"""Title, lead, routers, and bodies that no other section describes."""


def admin_sections() -> str:
    """The routes under `/api` and their bodies, then every type of answer."""
    answers = [
        f"### `{struct.__name__}`\n\n{_lead(struct)}{table(('field', 'type', 'meaning'), of_struct(struct))}"
        for struct in with_parts(STRUCTS)
    ]
    return "\n".join([*(_section(*section) for section in SECTIONS), "## What `/api` answers\n", *answers])


def _section(title: str, lead: str, routers: Iterable[APIRouter], models_: Iterable[type[BaseModel]]) -> str:
    routes = [_route(route) for router in routers for route in router.routes if isinstance(route, APIRoute)]
    bodies = [
        f"### `{model.__name__}`\n\n{table(('field', 'type', 'default', 'meaning'), of_model(model))}"
        for model in models_
    ]
    head = ("route", "scope", "body and query", "answers", "")
    return "\n".join([f"## {title}\n\n{lead}\n\n{table(head, routes)}", *bodies])


def _route(route: APIRoute) -> tuple[str, ...]:
    method = next(iter(route.methods or ()))
    (scope,) = (each.dependency.scope for each in route.dependencies if isinstance(each.dependency, ScopeDependency))
    body = route.body_field.field_info.annotation if route.body_field else None
    takes = [_taken(kind) for kind in get_args(body) or (body,) if isinstance(kind, type) and kind is not NoneType]
    takes += [f"`?{field.alias}`" for field in route.dependant.query_params]
    address = f"/api{route.path}".replace(":path", "")
    return (
        f"`{method} {address}`",
        scope,
        " ".join(takes),
        _answer(route),
        " ".join((route.endpoint.__doc__ or "").split()),
    )


def _taken(body: type) -> str:
    """Linked if it is in `SECTIONS`; other bodies have a heading above."""
    described = {model for _, _, _, models_ in SECTIONS for model in models_}
    return f"[`{body.__name__}`](#{body.__name__.lower()})" if body in described else f"`{body.__name__}`"


def _answer(route: APIRoute) -> str:
    """The status unless 200, and the struct, or the name of a list of structs."""
    ((code, answer),) = ((code, answer) for code, answer in route.responses.items() if "content" in answer)
    if "application/json" not in answer["content"]:
        return "a file"
    schema = answer["content"]["application/json"]["schema"]
    ((before, of, after),) = (
        [(f'`{{"{name}": [`', each["items"], "`]}`") for name, each in schema["properties"].items()]
        if "properties" in schema
        else [("", schema, "")]
    )
    name = of["$ref"].rpartition("/")[2]
    return f"{'' if code == 200 else f'{code}, '}{before}[`{name}`](#{name.lower()}){after}"


def _lead(struct: type[msgspec.Struct]) -> str:
    return " ".join(struct.__doc__.split()).replace("None", "null") + "\n\n" if struct.__doc__ else ""
