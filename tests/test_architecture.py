"""The rooms stand on levels, imports run down them at the top of the file, and the API process never imports torch.

Each test walks every module and lists all offenders.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import millm

PACKAGE = Path(millm.__file__).parent

LEVELS = """
__main__
cli
api
experiments
generation
features lifecycle notebook
protocol state
monitoring profiles
demo events loaded status
hub
text
engine
sae
auth hardware logs
database settings
errors
"""
"""A line a level, the highest first; a room is a folder of the package or a file beside them. A module imports its own
room and rooms on lower lines."""

LEVEL_OF = {room: level for level, line in enumerate(LEVELS.split("\n")) for room in line.split()}

ENGINE_ROOMS = {"engine", "sae", "notebook"}
"""Their modules may import torch and transformers, except those that the API process uses as well."""

HEAVY = {"torch", "transformers"}

TYPE_CHECKING_IMPORTS = {"": {"errors", "notebook"}}
"""`from millm import SAE` imports these modules on first use; type checkers see them under TYPE_CHECKING."""

LATE_IMPORTS = {"engine.process", "cli", "text.response_parser"}
"""Modules that may import inside a function; each says why."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def nodes_of(tree: ast.AST, *, functions: bool = True) -> Iterator[ast.AST]:
    """Every node; without `functions`, only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from nodes_of(node, functions=functions)


def imported_names(tree: ast.AST, *, functions: bool = True) -> list[str]:
    """Dotted names of everything imported; `from a import b` is `a.b`."""
    found = []
    for node in nodes_of(tree, functions=functions):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@cache
def imported_modules(module: str, *, functions: bool = True) -> set[str]:
    """Modules of the package that a module imports, those for type checkers alone left out."""
    names = imported_names(MODULES[module], functions=functions)
    own = {name.removeprefix("millm").removeprefix(".") for name in names if name.split(".")[0] == "millm"}
    modules = {name if name in MODULES else name.rpartition(".")[0] for name in own}
    return modules - TYPE_CHECKING_IMPORTS.get(module, set()) - {module}


def room_of(module: str) -> str:
    return module.split(".")[0]


def parent_of(module: str) -> set[str]:
    return {module.rpartition(".")[0]} if "." in module else set()


@cache
def reached_from(module: str, *, with_parents: bool) -> set[str]:
    """Every module of the package that `module` imports, itself included; Python imports parent packages as well."""
    reached, todo = set[str](), [module]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += imported_modules(name, functions=False) | (parent_of(name) if with_parents else set())
    return reached


def test_every_room_has_one_level() -> None:
    rooms = {room_of(module) for module in MODULES} - {""}
    assert rooms == set(LEVEL_OF), rooms ^ set(LEVEL_OF)


def test_imports_run_downhill() -> None:
    uphill = [
        f"{module} imports {imported}"
        for module in MODULES
        for imported in imported_modules(module)
        if "" not in (room_of(module), room_of(imported)) and room_of(module) != room_of(imported)
        if LEVEL_OF[room_of(imported)] <= LEVEL_OF[room_of(module)]
    ]
    assert not uphill, uphill


def test_no_module_imports_itself_through_others() -> None:
    circular = [
        module
        for module in MODULES
        if any(module in reached_from(imported, with_parents=False) for imported in imported_modules(module))
    ]
    assert not circular, circular


def test_imports_are_at_the_top_of_the_file() -> None:
    late = [
        f"{module}.{function.name}"
        for module in set(MODULES) - LATE_IMPORTS
        for function in ast.walk(MODULES[module])
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and imported_names(function)
    ]
    assert not late, late


def test_nothing_of_the_server_imports_library_use() -> None:
    known = [
        module for module in MODULES if room_of(module) != "notebook"
        if any(room_of(imported) == "notebook" for imported in imported_modules(module))
    ]  # fmt: skip
    assert not known, known


def test_imports_for_type_checkers_are_under_type_checking() -> None:
    for module in TYPE_CHECKING_IMPORTS:
        body = [node for node in MODULES[module].body if not isinstance(node, ast.If)]
        assert not [name for name in imported_names(ast.Module(body, type_ignores=[])) if name.startswith("millm")]


def libraries_of(module: str) -> set[str]:
    return {name.split(".")[0] for name in imported_names(MODULES[module], functions=False)}


def test_only_the_engine_process_imports_torch() -> None:
    """By reading: from no module outside the engine's rooms is a module reached that imports a heavy library."""
    heavy = {module for module in MODULES if libraries_of(module) & HEAVY}
    strangers = {module for module in heavy if room_of(module) not in ENGINE_ROOMS}
    assert not strangers, strangers
    reaching = [
        module
        for module in MODULES
        if room_of(module) not in ENGINE_ROOMS and reached_from(module, with_parents=True) & heavy
    ]
    assert not reaching, reaching


def modules_after(code: str) -> set[str]:
    """What a fresh Python has imported after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_the_api_process_starts_without_torch() -> None:
    assert not modules_after("import millm.cli.serve, millm.cli.serving, millm.api.app") & HEAVY


def test_a_server_is_refused_before_the_web_server_is_imported() -> None:
    assert not modules_after("import millm.cli.serve") & {"fastapi", "uvicorn", "jinja2"}


def test_library_use_is_imported_on_first_use() -> None:
    assert not modules_after("import millm; dir(millm); millm.__version__; millm.MillmError") & HEAVY
    assert modules_after("from millm import SAE, steered, watching") >= HEAVY
