"""Features as a person types and reads them: `11 80`, `11 0.5 norm`, `11 ablate`. Knows no server."""

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, get_args

from millm.errors import InvalidSteering
from millm.sae.steering import FeatureSetting, Mode, Unit

FeatureSettings = tuple[FeatureSetting, ...]

MODES: tuple[str, ...] = get_args(Mode)
UNITS: tuple[str, ...] = get_args(Unit)


def parse_features(text: str) -> FeatureSettings:
    """Any number of `INDEX[@SAE] STRENGTH [mode] [unit]`. Raises InvalidSteering naming the word that is wrong."""
    words = text.replace("=", " ").replace(",", " ").split()
    found = []
    while words:
        knob, words = _parse_first(words)
        found.append(knob)
    return tuple(found)


def merge_features(current: FeatureSettings, new: FeatureSettings) -> FeatureSettings:
    """`new` in place of the same features in `current`; adding 0 takes a feature out."""
    knobs = {(knob.index, knob.sae): knob for knob in (*current, *new)}
    return tuple(knob for knob in knobs.values() if knob.strength or knob.mode != "add")


def describe_features(features: Sequence[FeatureSetting]) -> str:
    """As `parse` reads it."""
    return ", ".join(_describe_feature(knob) for knob in features)


def _parse_first(words: list[str]) -> tuple[FeatureSetting, list[str]]:
    """The knob that `words` begin with, and the words behind it."""
    index, _, sae = words[0].partition("@")
    if not (index.isascii() and index.isdecimal()):
        raise InvalidSteering(
            f"{words[0]!r} is neither a feature's index nor a mode ({', '.join(MODES)}) nor a unit ({', '.join(UNITS)})"
        )
    strength, rest = _parse_strength(words[1:])
    marks = list(takewhile((*MODES, *UNITS).__contains__, rest))
    mode, unit = _pick_one(marks, MODES, "add"), _pick_one(marks, UNITS, "raw")
    if strength is None and mode != "ablate":
        raise InvalidSteering(f"feature {index}: say how strongly, such as /steer {index} 80")
    given: dict[str, Any] = {"mode": mode, "unit": unit, "sae": sae or None}
    return FeatureSetting(index=int(index), strength=strength or 0.0, **given), rest[len(marks) :]


def _parse_strength(words: list[str]) -> tuple[float | None, list[str]]:
    try:
        strength = float(words[0])
    except (IndexError, ValueError):
        return None, words
    if not math.isfinite(strength):
        raise InvalidSteering(f"strength {words[0]!r} is not a number that can be added")
    return strength, words[1:]


def _pick_one(marks: list[str], known: tuple[str, ...], default: str) -> str:
    given = [mark for mark in marks if mark in known]
    if len(given) > 1:
        raise InvalidSteering(f"{given[0]!r} and {given[1]!r} exclude each other")
    return given[0] if given else default


def _describe_feature(feature: FeatureSetting) -> str:
    name = f"{feature.index}@{feature.sae}" if feature.sae else str(feature.index)
    sign = "+" if feature.mode == "add" else ""
    strength = "" if feature.mode == "ablate" else f"{feature.strength:{sign}}".removesuffix(".0")
    marks = ("" if feature.mode == "add" else feature.mode, "" if feature.unit == "raw" else feature.unit)
    return " ".join(part for part in (name, strength, *marks) if part)
