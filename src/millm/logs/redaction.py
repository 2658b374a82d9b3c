"""Removes secrets from log lines, and paths of this machine from lines served over HTTP."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REDACTED = "[redacted]"
_SHORTEST_SECRET = 4
"""Characters; a shorter value would match inside ordinary words."""

_PATTERNS = (
    (re.compile(r"(?<![A-Za-z0-9])hf_\w{8,}"), REDACTED),
    (re.compile(r"\b(bearer)\s+[^\s'\",;}]+", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"://[^\s/'\"]+@"), f"://{REDACTED}@"),
    (re.compile(r"([?&](?:[\w-]*(?:token|ticket|key|sig|signature)|X-Amz-[\w-]+)=)[^&\s'\"#]+", re.IGNORECASE),
     rf"\1{REDACTED}"),
)  # fmt: skip


def to_json_value(value: Any) -> Any:
    """Convert to JSON types; other objects become their `repr`."""
    if isinstance(value, dict):
        return {str(name): to_json_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json_value(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text.encode("utf-8", "backslashreplace").decode()  # the name of a file need not be UTF-8


class SecretRedaction:
    """Replaces known token formats by pattern, and configured secrets by value."""

    def __init__(self, secrets: Sequence[str]) -> None:
        values = sorted((each for each in secrets if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._by_value = re.compile("|".join(map(re.escape, values))) if values else None

    def redact(self, value: Any) -> Any:
        return _map_texts(value, self._redact_text)

    def _redact_text(self, text: str) -> str:
        if self._by_value:
            text = self._by_value.sub(REDACTED, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


class PathRedaction:
    """Replaces MILLM_HOME by its variable, and any other absolute path by its last component."""

    def __init__(self, home: Path) -> None:
        roots = "|".join(map(re.escape, sorted(os.listdir("/"))))
        self._home = re.compile(rf"{re.escape(str(home))}(?=[/\s'\",;:)\]]|$)")
        self._quoted = re.compile(rf"(['\"])/(?:{roots})/(?:[^'\"\n]*/)?([^/'\"\n]*)\1")
        self._bare = re.compile(rf"(?<![\w.~…/:-])/(?:{roots})/(?:[^\s'\",;:)\]}}>]*/)?([^\s'\",;:)\]}}>/]*)")

    def redact(self, value: Any) -> Any:
        return _map_texts(value, self._redact_text)

    def _redact_text(self, text: str) -> str:
        text = self._home.sub("MILLM_HOME", text)
        return self._bare.sub(r"…/\1", self._quoted.sub(r"\1…/\2\1", text))


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Apply `change` to every string in `value`, including dict keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _map_texts(each, change) for name, each in value.items()}
    return [_map_texts(each, change) for each in value] if isinstance(value, list) else value
