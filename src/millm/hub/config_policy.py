"""The policy for a model's config.json, applied before transformers reads it: data, never code from elsewhere.

Five advisories of 2025 and 2026 are settings by which a library fetched and ran foreign Python although
`trust_remote_code` was off; such configurations are rejected here.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from millm.errors import InvalidModel, RemoteCodeRefused

_MAPPING_FILES = ("auto_mappings.py", "configuration_auto.py")
_MAPPING_NAME = "CONFIG_MAPPING_NAMES"


@cache
def known_model_types() -> frozenset[str]:
    """The `model_type`s that the installed transformers has code for; empty where its table is not found.

    Parsed from its source, since the import costs seconds; a test compares with transformers' own answer.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return frozenset()
    folder = Path(spec.origin).parent / "models" / "auto"
    return frozenset(name for file in _MAPPING_FILES for name in _read_model_types(folder / file))


def _read_model_types(path: Path) -> list[str]:
    statements = ast.parse(path.read_bytes()).body if path.is_file() else []
    tables = filter(_is_mapping_statement, statements)
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


_QUANTIZATION_METHODS = frozenset((
    "bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit", "gptq", "awq", "fp8", "fbgemm_fp8", "mxfp4", "mxfp8",
    "nvfp4", "compressed-tensors", "hqq", "aqlm", "bitnet", "auto-round", "eetq", "higgs", "vptq", "spqr",
))  # fmt: skip
"""Methods whose settings are numbers; the settings of others name classes or functions."""
_ATTENTION_IMPLEMENTATIONS = frozenset(("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"))
_SHARD_NAME = re.compile(r"[A-Za-z0-9._\-]+\.safetensors")
_MAX_DEPTH = 12


def needs_remote_code(config: Mapping[str, Any]) -> bool:
    """True for a model that brings code of its own and that transformers has none for."""
    known = known_model_types()
    return bool(config.get("auto_map")) and bool(known) and str(config.get("model_type")) not in known


def screen_config(config: Mapping[str, Any], name: str = "config.json", *, is_trusted: bool = False) -> None:
    """Raises RemoteCodeRefused, or InvalidModel naming the setting. `is_trusted`: the operator named this commit."""
    if needs_remote_code(config) and not is_trusted:
        raise RemoteCodeRefused(
            f"{name} asks for Python of its own (auto_map), and transformers has none for model_type"
            f" {str(config.get('model_type'))[:60]!r}; if you trust its authors, name it in MILLM_TRUST_REMOTE_CODE"
        )
    for key, value in _iter_settings(config, name, _MAX_DEPTH):
        if key == "custom_pipelines" or _names_code(key, value):
            raise RemoteCodeRefused(f"{name} asks for code from elsewhere ({key[:60]}); take that setting out of it")
    _check_quantization(config.get("quantization_config"), name)


def shard_names(index: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The files that an index spreads the weights over. Raises InvalidModel for a name that could lead elsewhere."""
    table = index.get("weight_map")
    if not isinstance(table, dict) or not table:
        raise InvalidModel(f"{name} has no weight_map; download it again")
    for shard in table.values():
        if not isinstance(shard, str) or not _SHARD_NAME.fullmatch(shard):
            raise InvalidModel(f"{name} names {str(shard)[:60]!r}, which is no .safetensors file beside it")
    return tuple(dict.fromkeys(table.values()))


def _names_code(key: str, value: Any) -> bool:
    """True for `_attn_implementation_internal`, `kernel_config`…; numbers are harmless (`conv_kernel`: 4)."""
    if "implementation" in key:
        return not all(text in _ATTENTION_IMPLEMENTATIONS for text in _iter_strings(value))
    return "kernel" in key and any("/" in text for text in _iter_strings(value))


def _iter_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _iter_strings(inner)


def _iter_settings(values: Mapping[str, Any], name: str, depth_left: int) -> Iterator[tuple[str, Any]]:
    """All keys of the object and of the objects inside it."""
    if not depth_left:
        raise InvalidModel(f"{name} is nested more than {_MAX_DEPTH} deep; no model's is")
    for key, value in values.items():
        yield key, value
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _iter_settings(inner, name, depth_left - 1)


def _check_quantization(quantization_config: Any, name: str) -> None:
    if not quantization_config:
        return
    values = quantization_config if isinstance(quantization_config, dict) else {}
    method = values.get("quant_method", "bitsandbytes" if {"load_in_8bit", "load_in_4bit"} & values.keys() else None)
    if str(method) not in _QUANTIZATION_METHODS:
        raise InvalidModel(
            f"{name}: quantization_config of the kind {str(method)[:60]!r} is not known; known are"
            f" {', '.join(sorted(_QUANTIZATION_METHODS))}"
        )
