"""Imports run downhill, at the top of the file; the API process never reaches torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import millm

PACKAGE = Path(millm.__file__).parent

# From the top of the hill to the bottom. A module may import its own room and rooms below it.
LEVELS = [
    ("__main__",),
    ("cli",),
    ("app", "wire"),
    ("startpage", "webpage", "admin", "guard", "metrics.route"),
    ("notebook",),
    ("experiments",),
    ("openai",),
    ("openai.envelope", "openai.json_route", "openai.validation", "access"),
    ("lifecycle",),
    ("features",),
    ("profiles.saving", "profiles.selection"),
    ("profiles.importing", "profiles.exporting"),
    ("profiles.binding",),
    ("profiles.resolving",),
    ("metrics.gauges",),
    ("state",),
    ("tickets", "status", "desired", "settings_told"),
    ("monitor",),
    ("principal",),
    ("features.described",),
    ("text", "hub", "profiles", "demo", "engine.client", "engine.kept", "engine.child", "engine.pace"),
    ("engine.process",),
    ("engine",),
    ("sae",),
    ("events", "hardware"),
    ("why_cpu",),
    ("engine.messages", "logs", "gpus", "container"),
    ("sae.steering", "sae.calibration_text", "settings", "storage"),
    ("hub.jobs", "hub.entries", "hub.cache_folder", "monitor.rows", "backups", "doors", "metrics"),
    ("errors", ""),
]
NEIGHBOURS = {("demo", "hub"), ("hub", "text"), ("profiles", "hub")}
"""Rooms on one level that may know each other, one way."""

TORCH_ROOMS = ("engine", "sae", "notebook")
"""The engine process's rooms, and library use, which is a process of somebody's own."""
WITHOUT_TORCH = (
    "engine.child",
    "engine.client",
    "engine.kept",
    "engine.messages",
    "engine.pace",
    "engine.process",
    "engine.sizes",
    "sae.steering",
    "sae.calibration_text",
    "sae.config",
    "sae.gemma_scope_path",
    "sae.model_names",
    "sae.npz",
    "sae.sizes",
    "sae.foreign.order",
)
"""What the API process uses of them."""

TOLD_TO_TYPE_CHECKERS = {"": {"errors", "notebook"}}
"""What a module names under TYPE_CHECKING and imports when it is first asked for: `from millm import SAE`."""

LATE_LIBRARY = {"text.response_template": {"transformers"}}
"""Where a library is imported inside a function: without torch, and only for models that need it."""

LATE_IMPORTS = {"engine.process", "cli", *LATE_LIBRARY}
"""The documented places where a module is imported inside a function."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST) -> list[str]:
    """Dotted names of everything imported, `from a import b` as `a.b`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def own_imports(tree: ast.AST) -> set[str]:
    """Modules of this package that are imported, relative to it."""
    own = {name.removeprefix("millm").removeprefix(".") for name in imports(tree) if name.split(".")[0] == "millm"}
    return {name if name in MODULES else name.rpartition(".")[0] for name in own}


def level(module: str) -> int:
    """Line in LEVELS of the longest prefix of `module`."""
    matches = [
        (len(room), index)
        for index, rooms in enumerate(LEVELS)
        for room in rooms
        if module == room or module.startswith(f"{room}.") or room == ""
    ]
    return max(matches)[1]


def room(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downhill(module: str) -> None:
    for imported in own_imports(MODULES[module]) - TOLD_TO_TYPE_CHECKERS.get(module, set()):
        same_room = room(imported) == room(module) and level(imported) >= level(module)
        downhill = level(imported) > level(module)
        assert same_room or downhill or (room(module), room(imported)) in NEIGHBOURS, f"{module} imports {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_only_the_engine_process_imports_torch(module: str) -> None:
    reaches_torch = {name.split(".")[0] for name in imports(MODULES[module])} & {"torch", "transformers"}
    if room(module) not in TORCH_ROOMS or module in WITHOUT_TORCH:
        top_level = {name.split(".")[0] for node in MODULES[module].body for name in imports(node)}
        assert reaches_torch & top_level <= LATE_LIBRARY.get(module, set()), f"{module} imports {reaches_torch}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - LATE_IMPORTS))
def test_imports_are_at_the_top_of_the_file(module: str) -> None:
    for function in ast.walk(MODULES[module]):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            assert not imports(function), f"{module}.{function.name} imports inside"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if room(name) != "notebook"))
def test_nothing_of_the_server_knows_library_use(module: str) -> None:
    known = own_imports(MODULES[module]) - TOLD_TO_TYPE_CHECKERS.get(module, set())
    assert not {imported for imported in known if room(imported) == "notebook"}


def test_what_type_checkers_are_told_is_under_type_checking() -> None:
    for module in TOLD_TO_TYPE_CHECKERS:
        body = [node for node in MODULES[module].body if not isinstance(node, ast.If)]
        assert not own_imports(ast.Module(body, type_ignores=[]))


HEAVY = {"torch", "transformers"}


def imported_by(code: str) -> set[str]:
    """What a fresh Python has imported after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_the_api_process_starts_without_torch() -> None:
    assert not imported_by("import millm.cli.demo, millm.cli.serve, millm.cli.serving") & HEAVY


def test_a_server_is_refused_before_the_web_server_is_imported() -> None:
    assert not imported_by("import millm.cli.demo, millm.cli.serve") & {"fastapi", "uvicorn", "jinja2"}


def test_library_use_is_imported_when_it_is_asked_for() -> None:
    assert not imported_by("import millm; dir(millm); millm.__version__; millm.MillmError") & HEAVY
    assert imported_by("from millm import SAE, steered, watching") >= HEAVY
