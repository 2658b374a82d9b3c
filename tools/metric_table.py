"""The table of docs/operations/running.md: each metric with kind, labels and meaning."""

import re
from collections.abc import Iterator

from millm.api.metrics import GAUGES
from millm.monitoring.metrics import COUNTER_LABELS, Meter
from tools.field_tables import table

_BLOCK = re.compile(r"(<!-- metrics: .*? -->\n).*?(\n<!-- /metrics -->)", re.DOTALL)


def with_table(page: str) -> str:
    """`page` with new text between its marks."""
    text = table(("name", "kind", "labels", "meaning"), list(_rows()))
    return _BLOCK.sub(lambda found: f"{found[1]}\n{text}{found[2]}", page)


def _rows() -> Iterator[tuple[str, str, str, str]]:
    for family in Meter().registry.collect():
        yield _row(family.name, family.type, COUNTER_LABELS.get(family.name, ()), family.documentation)
    for gauge in GAUGES:
        yield _row(gauge.name, gauge.kind, gauge.labels, gauge.help)


def _row(name: str, kind: str, labels: tuple[str, ...], meaning: str) -> tuple[str, str, str, str]:
    full_name = f"{name}_total" if kind == "counter" else name
    return f"`{full_name}`", kind, " ".join(f"`{label}`" for label in labels), meaning
