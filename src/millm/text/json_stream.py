"""Scan JSON one character at a time, so that invalid JSON fails at its first wrong character (RFC 8259).

Each scanner is a generator that is sent the characters after the one it was started with.
"""

import re
from collections.abc import Generator

MAX_DEPTH = 64
JsonScan = Generator[None, str, str | None]
"""Returns the character after the value when it was read to find the end of the value, else None."""
WHITESPACE = " \t\n\r"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LITERALS = {"t": "rue", "f": "alse", "n": "ull"}


class NotJson(ValueError):
    """The last character is not valid JSON in its place."""


def scan_value(first: str, depth: int = 0) -> JsonScan:
    if first == "{":
        yield from scan_members(depth + 1)
    elif first == "[":
        yield from _scan_items(depth + 1)
    elif first == '"':
        yield from scan_string()
    elif first in _LITERALS:
        yield from _scan_literal(_LITERALS[first])
    else:
        return (yield from _scan_number(first))
    return None


def scan_members(depth: int = 1) -> JsonScan:
    """The rest of an object, after its brace."""
    _check_depth(depth)
    char = yield from skip_space(None)
    while char != "}":
        yield from scan_key(char)
        after = yield from scan_value((yield from skip_space(None)), depth)
        char = yield from skip_comma(after, "}")
    return None


def scan_key(first: str) -> Generator[None, str, str]:
    """The name of a member, through its colon."""
    expect(first, '"')
    name = yield from scan_string()
    expect((yield from skip_space(None)), ":")
    return name


def scan_string() -> Generator[None, str, str]:
    """The rest of a string, after its quote; returns its content with the escapes unchanged."""
    content: list[str] = []
    while (char := (yield)) != '"':
        if char < " ":
            raise NotJson
        content.append(char)
        if char == "\\":
            content.append((yield from _scan_escape()))
    return "".join(content)


def skip_comma(after: str | None, closing: str) -> Generator[None, str, str]:
    """After a member or item: the closing bracket, or the first character of the next one."""
    char = yield from skip_space(after)
    if char == closing:
        return char
    expect(char, ",")
    char = yield from skip_space(None)
    if char == closing:
        raise NotJson
    return char


def skip_space(char: str | None) -> Generator[None, str, str]:
    """The next character that is not a space: `char`, if it was read already, or a later one."""
    while char is None or char in WHITESPACE:
        char = yield
    return char


def expect(char: str, expected: str) -> None:
    if char != expected:
        raise NotJson


def _scan_items(depth: int) -> JsonScan:
    _check_depth(depth)
    char = yield from skip_space(None)
    while char != "]":
        after = yield from scan_value(char, depth)
        char = yield from skip_comma(after, "]")
    return None


def _scan_escape() -> Generator[None, str, str]:
    char = yield
    if char not in '"\\/bfnrtu':
        raise NotJson
    digits = []
    for _ in range(4 if char == "u" else 0):
        digits.append((yield))
        if digits[-1] not in "0123456789abcdefABCDEF":
            raise NotJson
    return char + "".join(digits)


def _scan_literal(rest: str) -> Generator[None, str, None]:
    for letter in rest:
        expect((yield), letter)


def _scan_number(first: str) -> Generator[None, str, str]:
    number = ""
    char = first
    while char in "0123456789+-.eE":
        number += char
        char = yield
    if not _NUMBER.fullmatch(number):
        raise NotJson
    return char


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotJson
