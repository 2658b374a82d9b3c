"""The section on the library of the API page: its routes, what they take and what they answer, read from the code."""

import msgspec
from fastapi.routing import APIRoute
from pydantic import BaseModel

from millm.access import Required
from millm.admin import attachments, hardware, jobs, loading, logs, models, registry, saes, status
from millm.admin.answers import STRUCTS
from millm.admin.attachments import Attach
from millm.admin.ids import Download
from millm.admin.loading import Load, ToEstimate
from tools.field_tables import of_model, of_struct, table, with_parts

LIBRARY_LEAD = (
    "What is on disk, how it gets there, and what of it is in memory. An `id` is `owner/name` (`@revision` unless it is"
    " `main`), of an SAE `owner/name/path/inside`; what was imported or ships with miLLM has no slash. Whatever takes"
    " long goes on when the client leaves: downloads are jobs, and `/api/events` tells how far each has come. Scope"
    " `monitor` comes with every key; `admin` with the admin key, or with the API key where there is no other."
)

LIBRARY = (models, loading, saes, attachments, jobs, registry, status, hardware, logs)
"""Whose routes are its section of the API page."""
BODIES: tuple[type[BaseModel], ...] = (Download, Load, ToEstimate, Attach)


def library_section() -> str:
    """Its routes, what they take and what they answer."""
    routes = [_route(route) for part in LIBRARY for route in part.router.routes if isinstance(route, APIRoute)]
    bodies = [
        f"### `{model.__name__}`\n\n{table(('field', 'type', 'default', 'meaning'), of_model(model))}"
        for model in BODIES
    ]
    answers = [
        f"### `{struct.__name__}`\n\n{_lead(struct)}{table(('field', 'type', 'meaning'), of_struct(struct))}"
        for struct in with_parts(STRUCTS)
    ]
    head = ("route", "scope", "takes", "answers", "")
    return "\n".join([f"## The library\n\n{LIBRARY_LEAD}\n\n{table(head, routes)}", *bodies, *answers])


def _route(route: APIRoute) -> tuple[str, ...]:
    method = next(iter(route.methods or ()))
    (scope,) = (each.dependency.scope for each in route.dependencies if isinstance(each.dependency, Required))
    body = route.body_field.field_info.annotation if route.body_field else None
    takes = [f"[`{body.__name__}`](#{body.__name__.lower()})"] if body else []
    takes += [f"`?{field.name}`" for field in route.dependant.query_params]
    address = f"/api{route.path}".replace(":path", "")
    return (
        f"`{method} {address}`",
        scope,
        " ".join(takes),
        _answer(route),
        " ".join((route.endpoint.__doc__ or "").split()),
    )


def _answer(route: APIRoute) -> str:
    """Of what status it is if not 200, and which struct, or a list of which under what name."""
    ((code, told),) = ((code, told) for code, told in route.responses.items() if "content" in told)
    schema = told["content"]["application/json"]["schema"]
    ((before, of, after),) = (
        [(f'`{{"{name}": [`', each["items"], "`]}`") for name, each in schema["properties"].items()]
        if "properties" in schema
        else [("", schema, "")]
    )
    name = of["$ref"].rpartition("/")[2]
    return f"{'' if code == 200 else f'{code}, '}{before}[`{name}`](#{name.lower()}){after}"


def _lead(struct: type[msgspec.Struct]) -> str:
    return " ".join(struct.__doc__.split()).replace("None", "null") + "\n\n" if struct.__doc__ else ""
