"""Markdown tables of the fields of a pydantic model or a struct, with types and meanings."""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import UnsetType
from pydantic import BaseModel

Row = tuple[str, ...]

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", NoneType: "null"}


def table(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def of_model(model: type[BaseModel]) -> list[Row]:
    """(field, type, default, meaning) of each."""
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
    """The default as JSON, without fields that are None."""
    default = field.get("default")
    if isinstance(default, dict):
        default = {name: value for name, value in default.items() if value is not None}
    return "" if default in (None, {}, [], "") else f"`{default if isinstance(default, str) else json.dumps(default)}`"


def of_struct(struct: type[msgspec.Struct]) -> list[Row]:
    """(field, type in JSON, meaning) of each; meanings are read from the source."""
    meanings = {name: meaning for base in reversed(struct.__mro__) for name, meaning in _meanings(base)}
    return [
        (f"`{field.name}`", _in_json(field.type), meanings.get(field.name, ""))
        for field in msgspec.structs.fields(struct)
    ]


def with_parts(structs: Iterable[type[msgspec.Struct]]) -> list[type[msgspec.Struct]]:
    """`structs`, and each nested struct after the first one that holds it."""
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


def _in_json(kind: Any) -> str:
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        return _in_json(parts[0])
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in parts)
    if get_origin(kind) is tuple:
        return f"list of {_in_json(parts[0])}"
    if parts and get_origin(kind) is not dict:
        return " or ".join(_in_json(part) for part in parts if part is not UnsetType)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"[`{kind.__name__}`](#{kind.__name__.lower()})"
    return _NAMES[get_origin(kind) or kind]


def _meanings(cls: type) -> Iterator[tuple[str, str]]:
    """(field, meaning) of the fields with a docstring below them."""
    if cls.__module__.split(".")[0] != "millm":
        return
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    for field, docstring in pairwise(definition.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(docstring, ast.Expr)
            and isinstance(docstring.value, ast.Constant)
        ):
            yield ast.unparse(field.target), " ".join(str(docstring.value.value).split()).replace("None", "null")
