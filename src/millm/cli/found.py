"""Public SAEs that were searched for, as a table; and the widths that people write. Knows no server."""

import re

from rich.console import Group, RenderableType

from millm.cli.columns import plain, table
from millm.cli.ids import Id
from millm.cli.quantities import UNKNOWN, number
from millm.errors import InvalidRequest
from millm.hub.registry import Found

_WIDTH = re.compile(r"(\d+)([km]?)", re.IGNORECASE | re.ASCII)
_POWERS = {2**exponent // 1000: 2**exponent for exponent in range(10, 24)}
"""Thousands as names tell them → features: `width_65k` has 65,536."""
_SUPPORT = {"read": "yes", "converted": "converted", "no": "no"}


def found_table(found: Found, offset: int = 0) -> RenderableType:
    if not found.saes:
        return plain("no such SAE is known; leave out an option, or pull one by its place: owner/name/path/inside")
    rows = [
        (
            Id(sae.id), UNKNOWN if sae.layer is None else str(sae.layer), sae.site, number(sae.width),
            UNKNOWN if sae.l0 is None else f"{sae.l0:.0f}", _SUPPORT[sae.support],
        )
        for sae in found.saes
    ]  # fmt: skip
    last = offset + len(found.saes)
    more = f"; --offset {last} shows more" if last < found.total else ""
    return Group(
        table(("ID", ">LAYER", "SITE", ">FEATURES", ">L0", "READ"), rows),
        plain(f"{offset + 1} to {last} of {number(found.total)}{more}; `millm pull ID` downloads one"),
    )


def width_of(text: str) -> int:
    """`16384`, `16k`, `65k` (65,536, as Gemma Scope's names have it), `1m`. Raises InvalidRequest."""
    found = _WIDTH.fullmatch(text)
    if not found:
        raise InvalidRequest(f"--width {text!r} is no number of features; give one such as 16384 or 16k")
    count, unit = int(found[1]), found[2].lower()
    if unit == "m":
        return count * 2**20
    return _POWERS.get(count, count * 1024) if unit == "k" else count
