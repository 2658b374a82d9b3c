"""As much of Docker Compose as our files use, for machines without it: variables, overrides, `!reset` and profiles."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RESET = object()
"""Marks a value that an override removes."""

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


class _Loader(yaml.SafeLoader):
    """With Compose's `!reset` tag."""


_Loader.add_constructor("!reset", lambda _loader, _node: RESET)


def composed(*files: str, **variables: str) -> dict[str, Any]:
    """The result of `docker compose -f FILE… config`; `variables`: of the shell and of .env."""
    merged: dict[str, Any] = {}
    for name in files:
        text = (ROOT / name).read_text("utf-8")
        merged = _merged(merged, _interpolated(yaml.load(text, _Loader), variables))
    return merged


def started(config: dict[str, Any], *profiles: str) -> set[str]:
    """The services that `docker compose --profile … up` starts."""
    services = config["services"].items()
    return {name for name, service in services if not service.get("profiles") or set(service["profiles"]) & {*profiles}}


def variables_of(*files: str) -> set[str]:
    """All environment variables in the files, with and without a default."""
    texts = [(ROOT / name).read_text("utf-8") for name in files]
    passed_on = [
        name
        for text in texts
        for service in yaml.load(text, _Loader)["services"].values()
        for name, value in service.get("environment", {}).items()
        if value is None
    ]
    return {match["name"] for text in texts for match in _VARIABLE.finditer(text)} | set(passed_on)


def _interpolated(node: Any, variables: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolated(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, variables) for value in node]
    if isinstance(node, str):
        assert "$" not in _VARIABLE.sub("", node), f"a variable that is not understood: {node}"
        return _VARIABLE.sub(lambda match: variables.get(match["name"]) or match["default"] or "", node)
    return node


def _merged(below: Any, above: Any) -> Any:
    """Mappings by key, lists one after the other, anything else replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: _merged(below.get(key), value) for key, value in above.items() if value is not RESET}
        return {key: value for key, value in {**below, **both}.items() if above.get(key) is not RESET}
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    return above
