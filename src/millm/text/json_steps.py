"""JSON read one character at a time, so that what is none shows at its first wrong character (RFC 8259).

Each reader is a generator that is sent the characters behind the one it was started with.
"""

import re
from collections.abc import Generator

DEEPEST = 64

Steps = Generator[None, str, str | None]
"""Gives back the character behind the value where it had to be read to see the value's end, else None."""

SPACE = " \t\n\r"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"t": "rue", "f": "alse", "n": "ull"}


class NotJson(ValueError):
    """The last character cannot stand where it does."""


def value(first: str, depth: int = 0) -> Steps:
    if first == "{":
        yield from members(depth + 1)
    elif first == "[":
        yield from _items(depth + 1)
    elif first == '"':
        yield from string()
    elif first in _WORDS:
        yield from _word(_WORDS[first])
    else:
        return (yield from _number(first))
    return None


def members(depth: int = 1) -> Steps:
    """The rest of an object behind its brace."""
    _check_depth(depth)
    char = yield from past_space(None)
    while char != "}":
        yield from key(char)
        after = yield from value((yield from past_space(None)), depth)
        char = yield from past_comma(after, "}")
    return None


def key(first: str) -> Generator[None, str, str]:
    """A member's name, up to and with its colon."""
    expect(first, '"')
    name = yield from string()
    expect((yield from past_space(None)), ":")
    return name


def string() -> Generator[None, str, str]:
    """The rest of a string behind its quote; gives back what is between the quotes, escapes as they are."""
    read: list[str] = []
    while (char := (yield)) != '"':
        if char < " ":
            raise NotJson
        read.append(char)
        if char == "\\":
            read.append((yield from _escape()))
    return "".join(read)


def past_comma(after: str | None, closing: str) -> Generator[None, str, str]:
    """Behind a member or item: the closing bracket, or what the next one starts with."""
    char = yield from past_space(after)
    if char == closing:
        return char
    expect(char, ",")
    char = yield from past_space(None)
    if char == closing:
        raise NotJson
    return char


def past_space(char: str | None) -> Generator[None, str, str]:
    """The first character that is no space: `char`, where it was read already, or one to come."""
    while char is None or char in SPACE:
        char = yield
    return char


def expect(char: str, wanted: str) -> None:
    if char != wanted:
        raise NotJson


def _items(depth: int) -> Steps:
    _check_depth(depth)
    char = yield from past_space(None)
    while char != "]":
        after = yield from value(char, depth)
        char = yield from past_comma(after, "]")
    return None


def _escape() -> Generator[None, str, str]:
    char = yield
    if char not in '"\\/bfnrtu':
        raise NotJson
    digits = []
    for _ in range(4 if char == "u" else 0):
        digits.append((yield))
        if digits[-1] not in "0123456789abcdefABCDEF":
            raise NotJson
    return char + "".join(digits)


def _word(rest: str) -> Generator[None, str, None]:
    for letter in rest:
        expect((yield), letter)


def _number(first: str) -> Generator[None, str, str]:
    read = ""
    char = first
    while char in "0123456789+-.eE":
        read += char
        char = yield
    if not _NUMBER.fullmatch(read):
        raise NotJson
    return char


def _check_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise NotJson
