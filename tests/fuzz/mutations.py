"""Mutations of valid bodies: typical mistakes of clients, and attacks."""

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, 5e-324,
    float("nan"), float("inf"), "", " ", "0", "null", "\u0000", "\ud800", "\udfff\ud800", "\ufeff", "é", "🙂" * 50,
    "a" * 100_000, "<|im_end|>", "../../etc", "{{ 7 * 7 }}", "%s%n", [], {}, [[]], [None], {"": None}, [0] * 3000,
    {"type": "text"}, {"a": {"b": {"c": []}}},
)  # fmt: skip
DEEP = 3000

Body = dict[str, Any]


def spoiled(body: Body, random: Random) -> bytes:
    """One body as bytes: one to four changes of its values, and sometimes one of its bytes."""
    changed: Any = copy.deepcopy(body)
    for _ in range(min(random.randint(1, 4), random.randint(1, 4))):
        random.choice(CHANGES)(changed, random)
    data = json.dumps(changed).encode()
    return random.choice(BREAKS)(data, random) if random.random() < 0.2 else data


def _locations(value: Any) -> Iterator[tuple[Any, Any]]:
    """All containers in a value, with each of their keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(pairs):
        yield value, key
        yield from _locations(child)


def _random_location(body: Body, random: Random) -> tuple[Any, Any] | None:
    locations = list(_locations(body))
    return random.choice(locations[:500]) if locations else None


def _replace(body: Body, random: Random) -> None:
    if location := _random_location(body, random):
        location[0][location[1]] = copy.deepcopy(random.choice(ODD_VALUES))


def _remove(body: Body, random: Random) -> None:
    if location := _random_location(body, random):
        del location[0][location[1]]


def _wrap(body: Body, random: Random) -> None:
    if location := _random_location(body, random):
        location[0][location[1]] = random.choice([[location[0][location[1]]], {"value": location[0][location[1]]}])


def _swap(body: Body, random: Random) -> None:
    one, other = _random_location(body, random), _random_location(body, random)
    if one and other:
        one[0][one[1]] = copy.deepcopy(other[0][other[1]])


def _add(body: Body, random: Random) -> None:
    body[random.choice([*body, "unknown", "", "__proto__", "tools", "n", "echo", "steering", "profile"])] = (
        copy.deepcopy(random.choice(ODD_VALUES))
    )


def _many(body: Body, random: Random) -> None:
    lists = [parent[key] for parent, key in _locations(body) if isinstance(parent[key], list) and parent[key]]
    if lists:
        chosen = random.choice(lists)
        chosen *= random.choice([2, 20, 400])


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def _flip(data: bytes, random: Random) -> bytes:
    index = random.randrange(len(data))
    return data[:index] + bytes([random.randrange(256)]) + data[index + 1 :]


def _nest(data: bytes, random: Random) -> bytes:
    return b'{"messages":' + b"[" * DEEP + data + b"]" * DEEP + b"}"


def _double(data: bytes, random: Random) -> bytes:
    return data + random.choice([data, b"}", b"\x00", b"\xff\xfe"])


def _twice(data: bytes, random: Random) -> bytes:
    return data[:-1] + b', "model": "other", "model": 5}'


CHANGES: tuple[Callable[[Body, Random], None], ...] = (_replace, _replace, _replace, _remove, _wrap, _swap, _add, _many)
BREAKS: tuple[Callable[[bytes, Random], bytes], ...] = (_cut, _flip, _flip, _nest, _double, _twice)
