"""The tables of docs/compatibility.md: tested features of real clients, from the roster and the tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.tables import table
from tests.clients import roster

TESTS = Path(roster.__file__).parents[1]
PROGRAMS = (
    ("lm-eval", "lm-eval", TESTS / "clients" / "test_lm_eval.py"),
    ("Open WebUI", "open-webui", TESTS / "openwebui" / "test_open_webui.py"),
)
"""Name, package (and file of pins), tests of complete programs; each test name is a sentence."""

_BLOCK = re.compile(r"(<!-- clients: .*? -->\n).*?(\n<!-- /clients -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """`page` with new text between its marks."""
    text = "\n".join((_matrix(), _meanings(), *_programs()))
    return _BLOCK.sub(lambda found: f"{found[1]}\n{text}{found[2]}", page)


def _matrix() -> str:
    head = ("client", "version", *(name.replace("_", " ") for name in roster.FEATURES))
    rows = [
        (client.name, f"`{client.package}` {client.version}", *_ticks(client.features))
        for client in roster.CLIENTS
    ]  # fmt: skip
    return table(head, rows)


def _ticks(features: tuple[str, ...]) -> Iterator[str]:
    return ("✓" if name in features else "" for name in roster.FEATURES)


def _meanings() -> str:
    rows = [
        (name.replace("_", " "), meaning, f"`test_{name}`")
        for name, meaning in roster.FEATURES.items()
    ]  # fmt: skip
    return table(("feature", "what it means", "in [test_features.py](../tests/clients/test_features.py)"), rows)


def _programs() -> Iterator[str]:
    for name, package, path in PROGRAMS:
        version = roster.pinned(package, package)
        link = f"[{path.name}](../{path.relative_to(TESTS.parent)})"
        yield f"{name} {version}, in {link}:\n"
        yield "".join(f"- {sentence}\n" for sentence in _sentences(path))


def _sentences(path: Path) -> Iterator[str]:
    """`test_a_chat_streams` → "a chat streams"."""
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.FunctionDef) and statement.name.startswith("test_"):
            yield statement.name.removeprefix("test_").replace("_", " ")
