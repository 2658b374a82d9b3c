"""What a log line must not hold: secrets nowhere; where it is shown over HTTP, no paths of this machine either.

Knows no logger.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REDACTED = "[redacted]"
_SHORTEST_SECRET = 4
"""Characters: a shorter one is no secret, and would be found in every other word."""

_PATTERNS = (
    (re.compile(r"(?<![A-Za-z0-9])hf_\w{8,}"), REDACTED),
    (re.compile(r"\b(bearer)\s+[^\s'\",;}]+", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"://[^\s/'\"]+@"), f"://{REDACTED}@"),
    (re.compile(r"([?&](?:[\w-]*(?:token|ticket|key|sig|signature)|X-Amz-[\w-]+)=)[^&\s'\"#]+", re.IGNORECASE),
     rf"\1{REDACTED}"),
)  # fmt: skip


def to_json_value(value: Any) -> Any:
    """As JSON can hold it: what it cannot, by its `repr`."""
    if isinstance(value, dict):
        return {str(name): to_json_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json_value(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text.encode("utf-8", "backslashreplace").decode()  # the name of a file need not be UTF-8


class SecretRedaction:
    """Tokens by their look, and what the operator has set by its value."""

    def __init__(self, secrets: Sequence[str]) -> None:
        kept = sorted((each for each in secrets if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._by_value = re.compile("|".join(map(re.escape, kept))) if kept else None

    def redact(self, value: Any) -> Any:
        return _map_texts(value, self._redact_text)

    def _redact_text(self, text: str) -> str:
        if self._by_value:
            text = self._by_value.sub(REDACTED, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text


class PathRedaction:
    """The home folder by its variable; of any other absolute path the last name."""

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
    """With every text in it changed, names of fields too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _map_texts(each, change) for name, each in value.items()}
    return [_map_texts(each, change) for each in value] if isinstance(value, list) else value
