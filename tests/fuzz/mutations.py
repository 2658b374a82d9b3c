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
    sent = json.dumps(changed).encode()
    return random.choice(BREAKS)(sent, random) if random.random() < 0.2 else sent


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All containers in a value, with each of their keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(pairs):
        yield value, key
        yield from _places(child)


def _somewhere(body: Body, random: Random) -> tuple[Any, Any] | None:
    places = list(_places(body))
    return random.choice(places[:500]) if places else None


def _replace(body: Body, random: Random) -> None:
    if found := _somewhere(body, random):
        found[0][found[1]] = copy.deepcopy(random.choice(ODD_VALUES))


def _remove(body: Body, random: Random) -> None:
    if found := _somewhere(body, random):
        del found[0][found[1]]


def _wrap(body: Body, random: Random) -> None:
    if found := _somewhere(body, random):
        found[0][found[1]] = random.choice([[found[0][found[1]]], {"value": found[0][found[1]]}])


def _swap(body: Body, random: Random) -> None:
    one, other = _somewhere(body, random), _somewhere(body, random)
    if one and other:
        one[0][one[1]] = copy.deepcopy(other[0][other[1]])


def _add(body: Body, random: Random) -> None:
    body[random.choice([*body, "unknown", "", "__proto__", "tools", "n", "echo", "steering", "profile"])] = (
        copy.deepcopy(random.choice(ODD_VALUES))
    )


def _many(body: Body, random: Random) -> None:
    lists = [parent[key] for parent, key in _places(body) if isinstance(parent[key], list) and parent[key]]
    if lists:
        chosen = random.choice(lists)
        chosen *= random.choice([2, 20, 400])


def _cut(sent: bytes, random: Random) -> bytes:
    return sent[: random.randrange(len(sent))]


def _flip(sent: bytes, random: Random) -> bytes:
    place = random.randrange(len(sent))
    return sent[:place] + bytes([random.randrange(256)]) + sent[place + 1 :]


def _nest(sent: bytes, random: Random) -> bytes:
    return b'{"messages":' + b"[" * DEEP + sent + b"]" * DEEP + b"}"


def _double(sent: bytes, random: Random) -> bytes:
    return sent + random.choice([sent, b"}", b"\x00", b"\xff\xfe"])


def _twice(sent: bytes, random: Random) -> bytes:
    return sent[:-1] + b', "model": "other", "model": 5}'


CHANGES: tuple[Callable[[Body, Random], None], ...] = (_replace, _replace, _replace, _remove, _wrap, _swap, _add, _many)
BREAKS: tuple[Callable[[bytes, Random], bytes], ...] = (_cut, _flip, _flip, _nest, _double, _twice)
