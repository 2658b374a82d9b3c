"""Answers as tables: the fields of a struct, with the types and the meanings that stand in its source."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import msgspec

Row = tuple[str, str, str]


def rows(struct: type[msgspec.Struct]) -> list[Row]:
    """(field, type, meaning) of each, those that were inherited first."""
    told = {name: row for base in reversed(struct.__mro__) for name, row in _of(base)}
    return [told[field.name] for field in msgspec.structs.fields(struct)]


def with_parts(structs: Iterable[type[msgspec.Struct]]) -> list[type[msgspec.Struct]]:
    """And each struct that one of them holds, after the first that does."""
    found: dict[type[msgspec.Struct], None] = {}
    for struct in structs:
        if struct not in found:
            found[struct] = None
            inner = [kind for field in msgspec.structs.fields(struct) for kind in _structs_in(field.type)]
            found |= dict.fromkeys(with_parts(kind for kind in inner if kind not in found))
    return list(found)


def _structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for part in get_args(kind):
        yield from _structs_in(part)


def _of(cls: type) -> Iterator[tuple[str, Row]]:
    if cls.__module__.split(".")[0] != "millm":
        return
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            yield name, (f"`{name}`", _type(ast.unparse(statement.annotation)), _meaning(following))


def _type(annotation: str) -> str:
    """As JSON has it."""
    shown = annotation.replace(" | None", " or null").replace("tuple[", "list of ").replace(", ...]", "")
    return shown.replace("dict[str, Any]", "object").replace("str", "string").replace("bool", "boolean")


def _meaning(following: ast.stmt | None) -> str:
    if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
        return " ".join(str(following.value.value).split())
    return ""
