"""Write the pages that are tables: of the code (settings, errors, the API, commands, clients) and of the benchmarks.

python -m tools.make_docs        # tests/test_docs.py fails when a page is stale
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
from fastapi.routing import APIRoute
from pydantic import BaseModel

from benchmarks import tables
from millm.access import Required
from millm.admin import attachments, hardware, jobs, loading, logs, models, registry, saes, status
from millm.admin.answers import STRUCTS
from millm.admin.attachments import Attach
from millm.admin.ids import Download
from millm.admin.loading import Load, ToEstimate
from millm.admin.steering import ActiveSteering
from millm.cli import COMMANDS
from millm.errors import MillmError
from millm.events import Event
from millm.openai.json_route import DEEPEST
from millm.openai.responses.request import ResponsesRequest
from millm.openai.schemas.chat import ChatRequest
from millm.openai.schemas.completions import CompletionRequest
from millm.openai.schemas.embeddings import EmbeddingRequest
from millm.openai.unsupported import CHAT_IGNORED, CHAT_REFUSED
from millm.profiles.contract import ActivationsRequest, Profile, ProfileFeature, SteeringRequest
from millm.settings import Settings
from millm.status import ServerStatus
from millm.tickets import LIFE_SECONDS
from tools import client_tables, struct_tables

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTE = "<!-- Written by tools/make_docs.py from the code; do not edit. -->\n"


EVENTS_LEAD = (
    "Every frame is one JSON object. The first is a `hello`. A client may send"
    ' `{"type": "watch", "sae": "<name>", "features": [3, 11]}` to have `activations` of these features only (at most'
    " 1024; none: of all; without `sae`: of any); anything else closes the connection with 1008. One that does not read"
    " for 5 s is closed with 1013; the 65th connection is refused with 503."
)


LIBRARY_LEAD = (
    "What is on disk, how it gets there, and what of it is in memory. An `id` is `owner/name` (`@revision` unless it is"
    " `main`), of an SAE `owner/name/path/inside`; what was imported or ships with miLLM has no slash. Whatever takes"
    " long goes on when the client leaves: downloads are jobs, and `/api/events` tells how far each has come. Scope"
    " `monitor` comes with every key; `admin` with the admin key, or with the API key where there is no other."
)

LIBRARY = (models, loading, saes, attachments, jobs, registry, status, hardware, logs)
"""Whose routes are its section of the API page."""
BODIES: tuple[type[BaseModel], ...] = (Download, Load, ToEstimate, Attach)


def main() -> None:
    for path, text in {**{DOCS / name: text for name, text in pages().items()}, **figures()}.items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name → text."""
    clients = client_tables.with_tables((DOCS / "compatibility.md").read_text("utf-8"))
    made = {"settings.md": settings_page(), "errors.md": errors_page(), "api.md": api_page(), "cli.md": cli_page()}
    return {**made, "compatibility.md": clients}


def figures() -> dict[Path, str]:
    """The pages that show what was measured → text."""
    readme, results = ROOT / "README.md", tables.read()
    return {
        readme: tables.with_summary(readme.read_text("utf-8"), results),
        ROOT / "benchmarks" / "README.md": tables.page(results),
    }


def settings_page() -> str:
    rows = [
        (f"`{field.validation_alias or 'MILLM_' + name.upper()}`", _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Settings",
        "Environment variables, also read from a file `.env` in the working folder. A command-line option of the same"
        " name wins.",
        _table(("variable", "default", "meaning"), rows),
    )


def errors_page() -> str:
    rows = [(f"`{error.code}`", str(error.status), error.type, error.when) for error in _leaves(MillmError)]
    return _page(
        "Errors",
        'Every failed request is answered with `{"error": {"message", "type", "param", "code"}}`; all four keys are'
        " always there. The message names the thing and the allowed range. Codes do not change. HTTP itself adds"
        " `method_not_supported` (405) and `request_too_large` (413, a body over `MILLM_MAX_BODY_BYTES`)."
        " With a 503 comes a `Retry-After`,"
        " or with `x-should-retry: false` where a repetition would only fail again. Under `/api`, what"
        " is 400 here is 422, save a body that is no JSON. Errors of status 500 whose type is `server_error` and whose"
        " code starts with `cannot_`, `port_` or `home_` are the terminal's: one line and exit code 1. A download that"
        " fails carries such an error as its job's `problem`, also where nobody waits for an answer any more.",
        _table(("code", "status", "type", "when"), rows),
    )


def api_page() -> str:
    sections: list[tuple[str, type[BaseModel]]] = [
        ("POST /v1/chat/completions", ChatRequest),
        ("POST /v1/completions", CompletionRequest),
        ("POST /v1/responses", ResponsesRequest),
        ("POST /v1/embeddings", EmbeddingRequest),
        ("PUT /api/steering", ActiveSteering),
        ("`steering`", SteeringRequest),
        ("An entry of `steering.features`", ProfileFeature),
        ("`activations`", ActivationsRequest),
        ("A profile, as a JSON file", Profile),
    ]
    body = "\n".join(
        f"## {title}\n\n{_table(('field', 'type', 'default', 'meaning'), _fields(m))}{_passed_over(m)}"
        for title, m in sections
    )
    body += f"\n{library_section()}"
    body += f"\n## The websocket /api/events\n\n{EVENTS_LEAD}\n\n{_table(('type', 'fields', 'when'), _events())}"
    return _page(
        "API",
        "OpenAI's names and shapes, and miLLM's extensions. Fields that are not listed are ignored if OpenAI or other"
        " servers know them, and refused by name if ignoring them would change the answer (see [errors](errors.md))."
        " A running server has the whole as an OpenAPI document at `/openapi.json`. `GET /v1/models` lists the model"
        " and, as `model:profile`, every profile that fits what is attached.\n\n"
        "`POST /v1/responses` is a chat, asked for and told in the newer way: the same answers, with the receipt under"
        " `millm` in the response. Nothing is kept: `store` changes nothing, what refers to an earlier response is"
        " refused, and the whole conversation is sent each time. Only function tools work.\n\n"
        "`GET /api/steering` shows what steers requests that do not say otherwise; `PUT` changes it while the server"
        " answers (`null` or `{}`: the base model; a `profile` or a steering, not both). `GET /api/status` tells"
        f" {', '.join(f'`{field.name}`' for field in msgspec.structs.fields(ServerStatus))}.\n\n"
        "With `MILLM_API_KEY` set, every address but `/`, `/healthz`, `/readyz` and `/openapi.json` wants one of its"
        " keys as `Authorization: Bearer`. A browser, which cannot send that with a websocket, asks"
        f" `POST /api/ws-ticket` for a `ticket`, good once and for {LIFE_SECONDS} s as `?ticket=`. Bodies are UTF-8"
        f" JSON, at most {DEEPEST} levels deep. [SECURITY.md](../SECURITY.md) says who is let in at all.",
        body,
    )


def library_section() -> str:
    """Its routes, what they take and what they answer."""
    routes = [_route(route) for part in LIBRARY for route in part.router.routes if isinstance(route, APIRoute)]
    bodies = [
        f"### `{model.__name__}`\n\n{_table(('field', 'type', 'default', 'meaning'), _fields(model))}"
        for model in BODIES
    ]
    answers = [
        f"### `{struct.__name__}`\n\n{_lead(struct)}{_table(('field', 'type', 'meaning'), struct_tables.rows(struct))}"
        for struct in struct_tables.with_parts(STRUCTS)
    ]
    head = ("route", "scope", "takes", "answers", "")
    return "\n".join([f"## The library\n\n{LIBRARY_LEAD}\n\n{_table(head, routes)}", *bodies, *answers])


def _route(route: APIRoute) -> tuple[str, ...]:
    (method,) = route.methods
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
    doc = struct.__doc__ or ""
    return "" if doc.startswith(struct.__name__) else " ".join(doc.split()) + "\n\n"


def _passed_over(model: type[BaseModel]) -> str:
    """What a chat may hold besides."""
    if model is not ChatRequest:
        return ""
    refused = [(f"`{name}`", "refused", _but(neutral)) for name, neutral in CHAT_REFUSED.items()]
    ignored = [(f"`{name}`", "ignored", "") for name in CHAT_IGNORED]
    return "\nKnown, and not done:\n\n" + _table(("field", "", "but for"), sorted(refused + ignored))


def _but(neutral: tuple[Any, ...]) -> str:
    return ", ".join(f"`{json.dumps(value)}`" for value in neutral)


def _events() -> list[tuple[str, ...]]:
    return [
        (
            f"`{event.__struct_config__.tag}`",
            ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(event)),
            " ".join((event.__doc__ or "").split()),
        )
        for event in get_args(Event)
    ]


def cli_page() -> str:
    shown = [("millm --help", ["--help"]), *((f"millm {name} --help", [name, "--help"]) for name in COMMANDS)]
    blocks = [f"## `{title}`\n\n```text\n{help_text(arguments)}\n```\n" for title, arguments in shown]
    return _page("Commands", "What each command says of itself.", "\n".join(blocks))


def help_text(arguments: list[str]) -> str:
    """A command's help on a terminal 100 columns wide, without colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MILLM_", "FORCE_", "CLICOLOR"))}
    done = subprocess.run(
        [sys.executable, "-m", "millm", *arguments],
        env={**kept, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def _page(title: str, lead: str, body: str) -> str:
    return f"{NOTE}# {title}\n\n{lead}\n\n{body.rstrip()}\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _default(value: object) -> str:
    return "" if value in (None, ()) or str(value) == "PydanticUndefined" else f"`{value}`"


def _leaves(error: type[MillmError]) -> Iterator[type[MillmError]]:
    yield error
    for child in error.__subclasses__():
        yield from _leaves(child)


def _fields(model: type[BaseModel]) -> list[tuple[str, ...]]:
    schema = model.model_json_schema()
    required, shared = set(schema.get("required", ())), schema.get("$defs", {})
    return [
        (
            f"`{name}`",
            _type(field, shared),
            "required" if name in required else _json_default(field),
            field.get("description", ""),
        )
        for name, field in schema["properties"].items()
    ]


def _type(field: dict[str, Any], shared: dict[str, Any]) -> str:
    if reference := field.get("$ref"):
        name = reference.rpartition("/")[2]
        return _type(shared[name], shared) if "enum" in shared[name] else "object"
    if choices := field.get("anyOf"):
        return " or ".join(_type(choice, shared) for choice in choices if choice.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), shared)}"
    return str(field.get("type", "any")) + _range(field)


def _range(field: dict[str, Any]) -> str:
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    above = ">" if "exclusiveMinimum" in field else "≥"
    return f" {low} to {high}" if low is not None and high is not None else f" {above} {low}"


def _json_default(field: dict[str, Any]) -> str:
    """As it would be sent: what it leaves open is left out."""
    default = field.get("default")
    if isinstance(default, dict):
        default = {name: value for name, value in default.items() if value is not None}
    return "" if default in (None, {}, [], "") else f"`{default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    main()
