"""The history as a file: one line per token as JSON, or one row per token and feature as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator

import msgspec

from millm.monitor.history import HistoryEntry, RequestFilter
from millm.monitor.track import TrackedToken

EXPORT_SCHEMA = "millm.activations/1"
CSV_COLUMNS = (
    "schema", "request_id", "began", "endpoint", "model", "profile", "client", "task", "steering",
    "index", "position", "generated", "token", "sae", "feature", "value", "after", "from",
)  # fmt: skip

_CHUNK_BYTES = 2**16
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet would compute what begins so (owasp.org/www-community/attacks/CSV_Injection)."""


class ExportLine(msgspec.Struct, frozen=True, kw_only=True):
    """One token of one SAE."""

    schema: str = EXPORT_SCHEMA
    request_id: str
    began: float
    endpoint: str
    model: str
    profile: str | None
    client: str
    task: str | None
    steering: str | None
    seen: TrackedToken


def export_jsonl(entries: Iterable[HistoryEntry], request_filter: RequestFilter) -> Iterator[bytes]:
    return _join_chunks(
        msgspec.json.encode(_export_line(entry, seen)) + b"\n" for entry, seen in _entry_tokens(entries, request_filter)
    )


def export_csv(entries: Iterable[HistoryEntry], request_filter: RequestFilter) -> Iterator[bytes]:
    return _join_chunks(map(_csv_line, _csv_rows(entries, request_filter)))


def _entry_tokens(
    entries: Iterable[HistoryEntry], request_filter: RequestFilter
) -> Iterator[tuple[HistoryEntry, TrackedToken]]:
    return (
        (entry, seen)
        for entry in entries
        for track in filter(request_filter.matches_track, entry.tracks)
        for seen in track.tokens()
    )


def _export_line(entry: HistoryEntry, token: TrackedToken) -> ExportLine:
    row = entry.row
    return ExportLine(
        request_id=row.id,
        began=row.began,
        endpoint=row.endpoint,
        model=row.model,
        profile=row.profile,
        client=row.client,
        task=row.task,
        steering=row.steering,
        seen=token,
    )


def _csv_rows(entries: Iterable[HistoryEntry], request_filter: RequestFilter) -> Iterator[list[object]]:
    yield list(CSV_COLUMNS)
    for entry, seen in _entry_tokens(entries, request_filter):
        row = entry.row
        texts = (row.id, row.began, row.endpoint, row.model, row.profile, row.client, row.task, row.steering)
        begins = [
            EXPORT_SCHEMA,
            *map(_escape_formula, texts),
            seen.index,
            seen.position,
            seen.generated,
            _escape_formula(seen.token),
        ]
        for feature, value, after, source in _feature_values(seen):
            if request_filter.feature in (None, feature):
                yield [*begins, _escape_formula(seen.sae), feature, value, after, source]


def _feature_values(token: TrackedToken) -> Iterator[tuple[int, float | None, float | None, str]]:
    after = token.after or (None,) * len(token.features)
    for feature, value, later in zip(token.features, token.values, after, strict=True):
        yield feature, value, later, "watched"
    tops = dict(token.top or ()), dict(token.top_after or ())
    for feature in tops[0] | tops[1]:
        yield feature, tops[0].get(feature), tops[1].get(feature), "top"


def _escape_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_PREFIXES) else value


def _csv_line(values: list[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().encode()


def _join_chunks(parts: Iterable[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for part in parts:
        chunk += part
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)
