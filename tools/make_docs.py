"""Write the generated pages: tables of the code (settings, errors, API, commands, clients) and of the benchmarks.

python -m tools.make_docs        # tests/docs/test_pages.py fails when a page is stale
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import msgspec
import typer
from pydantic import BaseModel

from benchmarks import tables
from millm.api.admin.steering import FeatureChange, SteeringBody, SteeringChange
from millm.api.json_body import MAX_DEPTH
from millm.api.openai.responses.request import ResponsesRequest
from millm.api.openai.unsupported import IGNORED_CHAT_FIELDS, UNSUPPORTED_CHAT_FIELDS
from millm.auth import TICKET_LIFETIME_SECONDS
from millm.cli import COMMANDS
from millm.errors import MillmError
from millm.events import Event
from millm.experiments.schemas import CalibrateRequest, CompareRequest, SweepRequest
from millm.profiles.schema import ActivationsRequest, Profile, ProfileFeature, SteeringRequest
from millm.protocol.request import ChatRequest, CompletionRequest, EmbeddingRequest
from millm.settings import Settings
from millm.status import ServerStatus
from tools import client_tables, format_tables, memory_tables, metric_table, openai_tables
from tools.admin_sections import admin_sections
from tools.env_example import env_example
from tools.field_tables import of_model, table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTE = "<!-- Written by tools/make_docs.py from the code; do not edit. -->\n"


CLI_LEAD = (
    "Library commands use the running server (`--url`, or the default address); if none answers, they work on the local"
    " disk. `--json` prints JSON. Exit code 0: done; 1: refused, with the reason in one line; 130: Ctrl+C.\n\n"
    "First some recorded output, with a tiny model in place of the real one; then the help of each command."
)
RECORDED = {
    "pull": "Downloading a model, and an SAE inside a large repository",
    "list": "What is on disk",
    "estimate": "How much memory a model needs",
    "load": "Loading into the running server",
    "attach": "Attaching an SAE to the loaded model",
    "ps": "What is running",
}
"""File in docs/terminal → heading."""

EVENTS_LEAD = (
    "Every frame is a JSON list of events, at most twenty frames a second. The first event is a `hello`. A client may"
    ' send `{"type": "watch", "sae": "<name>", "features": [3, 11]}` to receive `activations` of these features only'
    " (at most 1024; an empty list: all; without `sae`: any SAE); other messages close the connection with 1008. A"
    " client that does not read for 5 s is disconnected with 1013, every client with 1001 when the server stops; the"
    " 65th connection is refused with 503."
)


DECISIONS_LEAD = (
    "Decisions that readers would not expect, each with context, decision and price. The structure of the code:"
    " [architecture](../architecture.md); how to take part: [contributing](../../CONTRIBUTING.md)."
)

SCHEMA_ID = "urn:millm:profile:1"


def main() -> None:
    written = {DOCS / name: text for name, text in pages().items()}
    single_files = {DOCS / "profile.schema.json": profile_schema(), ROOT / ".env.example": env_example()}
    for path, text in {**single_files, **written, **figures()}.items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name → text."""
    clients = client_tables.with_tables((DOCS / "compatibility.md").read_text("utf-8"))
    generated = {"settings.md": settings_page(), "errors.md": errors_page(), "api.md": api_page(), "cli.md": cli_page()}
    generated |= {
        "reference/openai.md": _page("The OpenAI surface", "", openai_tables.body()),
        "reference/formats-and-hooks.md": _page("SAE formats and hook points", "", format_tables.body()),
        "operations/memory.md": memory_tables.with_tables((DOCS / "operations" / "memory.md").read_text("utf-8")),
        "operations/running.md": metric_table.with_table((DOCS / "operations" / "running.md").read_text("utf-8")),
        "decisions/index.md": _page("Decisions", DECISIONS_LEAD, decisions()),
    }
    return {**generated, "compatibility.md": clients}


def decisions() -> str:
    """Every page of docs/decisions, by its number."""
    files = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    heads = [(path.name, *path.read_text("utf-8").splitlines()[0].removeprefix("# ").split(". ", 1)) for path in files]
    return table(("", "decision"), [(number, f"[{title}]({name})") for name, number, title in heads])


def profile_schema() -> str:
    """The profile contract for other tools: JSON Schema 2020-12."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    schema = {**head, **Profile.model_json_schema(), "title": "miLLM profile, version 1"}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def figures() -> dict[Path, str]:
    """The pages with measured figures → text."""
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
        " name takes precedence.",
        table(("variable", "default", "meaning"), rows),
    )


def errors_page() -> str:
    rows = [(f"`{error.code}`", str(error.status), error.type, error.when) for error in _leaves(MillmError)]
    return _page(
        "Errors",
        'Every failed request is answered with `{"error": {"message", "type", "param", "code"}}`, always with all four'
        " keys. The message names the value and the allowed range. Codes do not change. HTTP itself adds"
        " `method_not_supported` (405) and `request_too_large` (413, a body over `MILLM_MAX_BODY_BYTES`). A 503 has a"
        " `Retry-After`, or `x-should-retry: false` if a repetition would fail again. Under `/api`, 422 replaces 400,"
        " except for a body that is not JSON. Errors of status 500 and type `server_error` whose code starts with"
        " `cannot_`, `port_` or `home_` belong to the terminal: one line and exit code 1. A failed download carries its"
        " error as the job's `problem`.",
        table(("code", "status", "type", "when"), rows),
    )


def api_page() -> str:
    sections: list[tuple[str, type[BaseModel]]] = [
        ("POST /v1/chat/completions", ChatRequest),
        ("POST /v1/completions", CompletionRequest),
        ("POST /v1/responses", ResponsesRequest),
        ("POST /v1/embeddings", EmbeddingRequest),
        ("POST /api/compare", CompareRequest),
        ("POST /api/sweep", SweepRequest),
        ("POST /api/calibrate", CalibrateRequest),
        ("PUT /api/steering", SteeringBody),
        ("PATCH /api/steering", SteeringChange),
        ("An entry of its `features`", FeatureChange),
        ("`steering`", SteeringRequest),
        ("An entry of `steering.features`", ProfileFeature),
        ("`activations`", ActivationsRequest),
        ("A profile, as a JSON file", Profile),
    ]
    body = "\n".join(
        f"## {title}\n\n{table(('field', 'type', 'default', 'meaning'), of_model(m))}{_passed_over(m)}"
        for title, m in sections
    )
    body += f"\n{admin_sections()}"
    body += f"\n## The websocket /api/events\n\n{EVENTS_LEAD}\n\n{table(('type', 'fields', 'when'), _events())}"
    return _page(
        "API",
        "OpenAI's names and shapes, and miLLM's extensions. Unlisted fields are ignored if OpenAI or other servers have"
        " them, and refused by name if ignoring them would change the answer (see [errors](errors.md)). A running"
        " server has all of this as an OpenAPI document at `/openapi.json`. `GET /v1/models` lists the model and, as"
        " `model:profile`, every profile that fits the attached SAEs.\n\n"
        "`POST /v1/responses` is a chat in OpenAI's newer form: the same answers, with the receipt under `millm` in the"
        " response. It is stateless: `store` has no effect, references to an earlier response are refused, and each"
        " request carries the complete conversation. Only function tools work.\n\n"
        "`GET /api/steering` shows the active steering, which applies to requests without their own; `PUT` replaces it"
        " while the server answers (`null` or `{}`: the base model; a `profile` or a steering, not both), `PATCH`"
        " changes parts of it, `POST /api/steering/undo` and `/redo` undo and redo changes. `GET /api/status` has"
        f" {', '.join(f'`{field.name}`' for field in msgspec.structs.fields(ServerStatus))}.\n\n"
        "With `MILLM_API_KEY` set, every address but `/`, `/healthz`, `/readyz` and `/openapi.json` needs one of its"
        " keys as `Authorization: Bearer`. A browser cannot send that with a websocket: it gets a `ticket` from"
        f" `POST /api/ws-ticket`, valid once within {TICKET_LIFETIME_SECONDS} s as `?ticket=`. Bodies are UTF-8 JSON,"
        f" at most {MAX_DEPTH} levels deep. What else is refused: [SECURITY.md](../SECURITY.md).",
        body,
    )


def _passed_over(model: type[BaseModel]) -> str:
    """Fields of a chat that are refused or ignored."""
    if model is not ChatRequest:
        return ""
    refused = [(f"`{name}`", "refused", _but(neutral)) for name, neutral in UNSUPPORTED_CHAT_FIELDS.items()]
    ignored = [(f"`{name}`", "ignored", "") for name in IGNORED_CHAT_FIELDS]
    return "\nKnown, but not supported:\n\n" + table(("field", "", "except"), sorted(refused + ignored))


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
    shown = [["--help"], *([*command, "--help"] for command in _commands())]
    with ThreadPoolExecutor(2) as threads:
        helps = list(threads.map(help_text, shown))
    blocks = [
        f"## `millm {' '.join(arguments)}`\n\n```text\n{help}\n```\n"
        for arguments, help in zip(shown, helps, strict=True)
    ]
    return _page("Commands", CLI_LEAD, "\n".join([*_recordings(), *blocks]))


def _commands() -> Iterator[list[str]]:
    """Every command; those of a group after it."""
    for name, command in COMMANDS.items():
        yield [name]
        group: typer.Typer | None = getattr(import_module(f"millm.cli.{command.module}"), "group", None)
        for inner in group.registered_commands if group else ():
            assert inner.callback
            yield [name, inner.name or inner.callback.__name__]


def _recordings() -> Iterator[str]:
    """Output recorded by `tests/cli/make_recordings.py`, in the order of use."""
    for name, lead in RECORDED.items():
        text = (DOCS / "terminal" / f"{name}.txt").read_text("utf-8")
        yield f"## {lead}\n\n```text\n{text}```\n"


def help_text(arguments: list[str]) -> str:
    """A command's help on a terminal 100 columns wide, without colours."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("MILLM_", "FORCE_", "CLICOLOR"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "millm", *arguments],
        env={**variables, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def _page(title: str, lead: str, body: str) -> str:
    return "\n\n".join(part for part in (f"{NOTE}# {title}", lead, body.rstrip()) if part) + "\n"


def _default(value: object) -> str:
    return "" if value in (None, ()) or str(value) == "PydanticUndefined" else f"`{value}`"


def _leaves(error: type[MillmError]) -> Iterator[type[MillmError]]:
    yield error
    for child in error.__subclasses__():
        yield from _leaves(child)


if __name__ == "__main__":
    main()
