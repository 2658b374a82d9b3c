"""CONTRIBUTING, architecture, room pages and glossary are true: files and names exist, excerpts run."""

import ast
import re
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from millm.api.admin import openapi, system
from millm.api.app import create_app
from millm.sae import steering
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats.canonical import store_canonical
from tests.clients import roster
from tests.docs.blocks import ROOT, blocks_of
from tests.fixtures.bare import bare_state
from tests.test_architecture import LEVEL_OF, PACKAGE
from tools.make_docs import DOCS

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
ARCHITECTURE = DOCS / "architecture.md"
PAGES = [CONTRIBUTING, ARCHITECTURE, *sorted((DOCS / "rooms").glob("*.md")), DOCS / "glossary.md"]

NEW_FILES = {"src/millm/sae/formats/mylab.py"}
"""Files of the excerpts that a contributor would create."""
EXAMPLES = {
    "src/millm/api/admin/system.py": ("requires", "struct_response", "json_response"),
    "src/millm/api/admin/openapi.py": ("STRUCTS",),
    "tools/admin_sections.py": ("SECTIONS",),
    "src/millm/sae/formats/reader.py": ("SourceSae",),
    "tools/format_tables.py": ("NATIVE",),
    "tests/clients/roster.py": ("Client", "CLIENTS"),
    "src/millm/sae/steering.py": ("Mode", "coefficients"),
}
"""File → names that the worked examples rely on."""

_PATH = re.compile(r"`([\w.-]+/[\w./-]*|[\w-]+\.(?:py|tsx|yml))`")


def excerpt(title: str) -> str:
    (text,) = [block.text for block in blocks_of(CONTRIBUTING) if block.title == title]
    compile(text if "match" not in text else "def mode():\n" + textwrap.indent(text, "    "), title, "exec")
    return text


def names_in(path: Path) -> set[str]:
    """Everything that a module defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def candidates(name: str) -> list[Path]:
    """Where a page's name of a file may be: the repository, the package, or (a bare name) any room."""
    bare = list(PACKAGE.rglob(name)) if "/" not in name else []
    return [ROOT / name, PACKAGE / name, PACKAGE.parent / name, *bare]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    named = {name for name in _PATH.findall(prose) if name.endswith("/") or "." in name}
    missing = [name for name in named if not any(path.exists() for path in candidates(name))]
    assert not missing, missing


def test_every_room_is_on_the_napkin() -> None:
    text = ARCHITECTURE.read_text("utf-8")
    rooms = set(LEVEL_OF) - {"__main__"}
    missing = [room for room in rooms if f"{room}/" not in text and f"{room}.py" not in text]
    assert not missing, missing


def test_the_stations_of_a_request_exist() -> None:
    rows = re.findall(r"^\| (\d+) \| `([\w/]+\.py)` \| `(\w+)` \|", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert 8 <= len(rows) <= 12
    wrong = [(file, name) for _, file, name in rows if name not in names_in(PACKAGE / file)]
    assert not wrong, wrong


@pytest.mark.parametrize(("file", "names"), EXAMPLES.items(), ids=list(EXAMPLES))
def test_the_names_of_the_worked_examples_exist(file: str, names: tuple[str, ...]) -> None:
    assert set(names) <= names_in(ROOT / file)


def test_excerpts_stand_under_the_files_that_they_change() -> None:
    titles = {block.title for block in blocks_of(CONTRIBUTING) if block.title}
    assert len(titles) == 4
    assert all((ROOT / title).exists() or title in NEW_FILES for title in titles)


def test_the_example_endpoint_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    code = excerpt("src/millm/api/admin/system.py")
    definition, route = code.split("uptime_router =", 1)
    scope: dict[str, Any] = {**vars(system), "time": time}
    exec(definition, scope)
    monkeypatch.setattr(openapi, "STRUCTS", (*openapi.STRUCTS, scope["Uptime"]))
    exec(f"uptime_router ={route}", scope)
    app = create_app(bare_state())
    app.include_router(scope["uptime_router"], prefix="/api")
    answer = TestClient(app, base_url="http://localhost").get("/api/uptime")
    assert answer.status_code == 200
    assert answer.json()["seconds"] >= 0


def test_the_example_format_is_read(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(excerpt("src/millm/sae/formats/mylab.py"), scope)
    tensors = {
        "W_enc": torch.randn(6, 10),
        "W_dec": torch.randn(10, 6),
        "b_enc": torch.zeros(10),
        "b_dec": torch.zeros(6),
    }
    save_file(tensors, tmp_path / scope["MYLAB_WEIGHTS"])
    sae = SparseAutoencoder.open(store_canonical(scope["read_mylab"](tmp_path), tmp_path / "canonical"))
    assert (sae.config.d_sae, sae.config.source_format) == (10, "mylab")


def test_the_example_client_is_a_client() -> None:
    client = eval(excerpt("tests/clients/roster.py"), vars(roster))
    assert isinstance(client, roster.Client)
    assert set(client.features) <= set(roster.FEATURES)


def test_the_example_mode_limits_an_activation() -> None:
    scope = dict(vars(steering))
    body = textwrap.indent(excerpt("src/millm/sae/steering.py"), "    ")
    exec(f"def mode(setting, value):\n{body}", scope)
    row = scope["mode"](SimpleNamespace(index=3, mode="max_clamp"), 5.0)
    held = [activation + min(max(row.alpha + row.beta * activation, row.lo), row.hi) for activation in (2.0, 9.0)]
    assert held == [2.0, 5.0]
