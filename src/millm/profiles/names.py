"""What a profile may be called: 1 to 128 characters of any script; two names that read the same are one."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import count
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_NAME_LENGTH = 128
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Invisible characters that make a name look like another one."""


def validate_name(name: str) -> str:
    """In Unicode's composed form (NFC). Raises ValueError."""
    name = unicodedata.normalize("NFC", name)
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"a name has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}")
    if name != name.strip():
        raise ValueError("a name cannot begin or end with a space")
    if "/" in name or "\\" in name or set(name) <= {"."}:
        raise ValueError("a name cannot hold slashes, nor be of dots alone")
    if any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI_CONTROLS for character in name
    ):
        raise ValueError("a name cannot hold control characters, nor such as change the direction of text")
    return name


def name_key(name: str) -> str:
    """Equal for names that differ in case or in how their characters are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def numbered_names(name: str) -> Iterator[str]:
    """`name`, `name (2)`, `name (3)`, …, none longer than a name may be; `name (2)` is followed by `name (3)`."""
    yield name
    plain = re.sub(r" \([1-9]\d*\)$", "", name)
    for number in count(2):
        ending = f" ({number})"
        yield plain[: MAX_NAME_LENGTH - len(ending)] + ending


ProfileName = Annotated[
    str,
    Field(min_length=1, description="1 to 128 characters of any script, without slashes."),
    AfterValidator(validate_name),
]
