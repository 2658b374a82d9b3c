"""Public SAEs that were searched for, as a table; and the widths that people write. Knows no server."""

import re

from rich.console import Group, RenderableType

from millm.cli.columns import plain_text, table
from millm.cli.ids import IdText
from millm.cli.quantities import UNKNOWN, format_count
from millm.errors import InvalidRequest
from millm.hub.catalog import RegistryPage

_WIDTH_PATTERN = re.compile(r"(\d+)([km]?)", re.IGNORECASE | re.ASCII)
_WIDTHS_BY_THOUSANDS = {2**exponent // 1000: 2**exponent for exponent in range(10, 24)}
"""Thousands as names tell them → features: `width_65k` has 65,536."""
_SUPPORT_TEXTS = {"read": "yes", "converted": "converted", "no": "no"}


def registry_table(results: RegistryPage, offset: int = 0) -> RenderableType:
    if not results.saes:
        return plain_text("no such SAE is known; leave out an option, or pull one by its place: owner/name/path/inside")
    rows = [
        (
            IdText(sae.id), UNKNOWN if sae.layer is None else str(sae.layer), sae.site, format_count(sae.width),
            UNKNOWN if sae.l0 is None else f"{sae.l0:.0f}", _SUPPORT_TEXTS[sae.support],
        )
        for sae in results.saes
    ]  # fmt: skip
    last = offset + len(results.saes)
    more = f"; --offset {last} shows more" if last < results.total else ""
    return Group(
        table(("ID", ">LAYER", "SITE", ">FEATURES", ">L0", "READ"), rows),
        plain_text(f"{offset + 1} to {last} of {format_count(results.total)}{more}; `millm pull ID` downloads one"),
    )


def parse_width(text: str) -> int:
    """`16384`, `16k`, `65k` (65,536, as Gemma Scope's names have it), `1m`. Raises InvalidRequest."""
    found = _WIDTH_PATTERN.fullmatch(text)
    if not found:
        raise InvalidRequest(f"--width {text!r} is no number of features; give one such as 16384 or 16k")
    count, unit = int(found[1]), found[2].lower()
    if unit == "m":
        return count * 2**20
    return _WIDTHS_BY_THOUSANDS.get(count, count * 1024) if unit == "k" else count
