"""Which models the installed transformers has code for: read from its files, since importing it takes seconds.

A test compares this with what transformers says when it is asked.
"""

import ast
import importlib.util
from functools import cache
from pathlib import Path

_MAPPING_FILES = ("auto_mappings.py", "configuration_auto.py")
_MAPPING_NAME = "CONFIG_MAPPING_NAMES"


@cache
def known_model_types() -> frozenset[str]:
    """`model_type`s; empty where transformers is not there, or keeps its table elsewhere."""
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        return frozenset()
    folder = Path(found.origin).parent / "models" / "auto"
    return frozenset(name for file in _MAPPING_FILES for name in _read_model_types(folder / file))


def _read_model_types(path: Path) -> list[str]:
    if not path.is_file():
        return []
    tables = [statement for statement in ast.parse(path.read_bytes()).body if _is_mapping_statement(statement)]
    return [name for table in tables for node in ast.walk(table) for name in _mapping_keys(node)]


def _is_mapping_statement(statement: ast.stmt) -> bool:
    """`TABLE = …` and `TABLE.update(…)`."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name == _MAPPING_NAME
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="update"))):
            return name == _MAPPING_NAME
    return False


def _mapping_keys(node: ast.AST) -> list[str]:
    match node:
        case ast.Tuple(elts=[ast.Constant(value=str(name)), ast.Constant(value=str())]):
            return [name]
        case ast.Dict(keys=keys):
            return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    return []
