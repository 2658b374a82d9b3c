"""The history as a file: one line per token as JSON, or one row per token and feature as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator

import msgspec

from millm.monitor.history import Entry, Filter
from millm.monitor.track import TrackedToken

SCHEMA = "millm.activations/1"
CSV_COLUMNS = (
    "schema", "request_id", "began", "endpoint", "model", "profile", "client", "task", "steering",
    "index", "position", "generated", "token", "sae", "feature", "value", "after", "from",
)  # fmt: skip

_CHUNK = 2**16
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet would compute what begins so (owasp.org/www-community/attacks/CSV_Injection)."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One token of one SAE."""

    schema: str = SCHEMA
    request_id: str
    began: float
    endpoint: str
    model: str
    profile: str | None
    client: str
    task: str | None
    steering: str | None
    seen: TrackedToken


def jsonl(entries: Iterable[Entry], which: Filter) -> Iterator[bytes]:
    return _chunks(msgspec.json.encode(_line(entry, seen)) + b"\n" for entry, seen in _seen(entries, which))


def as_csv(entries: Iterable[Entry], which: Filter) -> Iterator[bytes]:
    return _chunks(map(_row, _rows(entries, which)))


def _seen(entries: Iterable[Entry], which: Filter) -> Iterator[tuple[Entry, TrackedToken]]:
    return (
        (entry, seen) for entry in entries for track in filter(which.means, entry.tracks) for seen in track.tokens()
    )


def _line(entry: Entry, seen: TrackedToken) -> Line:
    row = entry.row
    return Line(
        request_id=row.id,
        began=row.began,
        endpoint=row.endpoint,
        model=row.model,
        profile=row.profile,
        client=row.client,
        task=row.task,
        steering=row.steering,
        seen=seen,
    )


def _rows(entries: Iterable[Entry], which: Filter) -> Iterator[list[object]]:
    yield list(CSV_COLUMNS)
    for entry, seen in _seen(entries, which):
        row = entry.row
        texts = (row.id, row.began, row.endpoint, row.model, row.profile, row.client, row.task, row.steering)
        begins = [SCHEMA, *map(_safe, texts), seen.index, seen.position, seen.generated, _safe(seen.token)]
        for feature, value, after, source in _numbers(seen):
            if which.feature in (None, feature):
                yield [*begins, _safe(seen.sae), feature, value, after, source]


def _numbers(seen: TrackedToken) -> Iterator[tuple[int, float | None, float | None, str]]:
    after = seen.after or (None,) * len(seen.features)
    for feature, value, later in zip(seen.features, seen.values, after, strict=True):
        yield feature, value, later, "watched"
    tops = dict(seen.top or ()), dict(seen.top_after or ())
    for feature in tops[0] | tops[1]:
        yield feature, tops[0].get(feature), tops[1].get(feature), "top"


def _safe(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _row(values: list[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().encode()


def _chunks(parts: Iterable[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for part in parts:
        chunk += part
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)
