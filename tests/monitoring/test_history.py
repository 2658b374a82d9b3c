"""Bounds, filters, statistics and exports of the history."""

import csv
import io
import json

import numpy as np
import pytest
from msgspec.structs import replace

from millm.errors import RequestNotFound
from millm.events import RequestRecord
from millm.monitoring.history import ActivationTrack, History, HistoryEntry, RequestFilter
from millm.monitoring.statistics import (
    CSV_COLUMNS,
    EXPORT_SCHEMA,
    HISTOGRAM_EDGES,
    export_csv,
    export_jsonl,
    feature_statistics,
)

ROW = RequestRecord(
    id="0", endpoint="/v1/completions", model="m", profile=None, client="curl", task=None, began=1.0, seconds=1.0,
    first_token_seconds=0.1, streamed=False, end="stop", choices=1, prompt_tokens=1, completion_tokens=1,
    cached_tokens=0, steering=None, tokens_steered=0, delta_norm_ratio=0.0, degraded=None,
)  # fmt: skip
EVERYTHING = RequestFilter()


def ids(history: History, which: RequestFilter = EVERYTHING, before: str | None = None) -> list[str]:
    return [entry.record.id for entry in history.newest(which, before)]


def filled(history: History, *rows: RequestRecord, size: int = 10) -> History:
    for row in rows:
        assert history.reserve(size)
        history.add(HistoryEntry(row, (), size))
    return history


def numbered(count: int) -> list[RequestRecord]:
    return [replace(ROW, id=str(number)) for number in range(count)]


def test_history_is_bounded_by_requests() -> None:
    history = filled(History(3, 10_000), *numbered(5))
    assert ids(history) == ["4", "3", "2"]
    assert history.used_bytes == 30
    assert ids(history, before="3") == ["2"]
    assert ids(history, before="0") == [], "forgotten, and all that was older"


def test_history_is_bounded_by_bytes() -> None:
    history = filled(History(100, 55), *numbered(9))
    assert ids(history) == ["8", "7", "6", "5", "4"]
    assert history.reserve(30), "the oldest go"
    assert ids(history) == ["8", "7"]
    assert not history.reserve(56)
    assert history.used_bytes <= 55


def test_history_of_size_zero_is_disabled() -> None:
    assert not History(0, 1000).reserve(1)


def test_delete_and_clear() -> None:
    history = filled(History(9, 1000), *numbered(3))
    history.delete("1")
    assert ids(history) == ["2", "0"]
    for gone in ("1", "x"):
        with pytest.raises(RequestNotFound, match="last 9"):
            history.delete(gone)
    assert (history.clear(), len(history), history.used_bytes) == (2, 0, 0)


def test_request_filters() -> None:
    rows = [ROW, replace(ROW, id="1", client="open-webui", task="tags_generation"), replace(ROW, id="2", profile="p")]
    history = filled(History(9, 1000), *rows)
    track = ActivationTrack(0, "a", (3,), 1)
    track.add(0, "x", (1.0,), ((9, 2.0),), (), ())
    history.add(HistoryEntry(replace(ROW, id="3", endpoint="/v1/embeddings"), (track,), 0))
    cases = {
        RequestFilter(client="curl"): ["3", "2", "0"],
        RequestFilter(task="tags_generation"): ["1"],
        RequestFilter(task=""): ["3", "2", "0"],
        RequestFilter(profile="p"): ["2"],
        RequestFilter(profile=""): ["3", "1", "0"],
        RequestFilter(endpoint="/v1/embeddings"): ["3"],
        RequestFilter(sae="a"): ["3"],
        RequestFilter(sae="b"): [],
        RequestFilter(feature=3): ["3"],
        RequestFilter(feature=9): ["3"],
        RequestFilter(feature=4): [],
        RequestFilter(client="curl", profile="p"): ["2"],
    }
    assert {which: ids(history, which) for which in cases} == cases


# -------------------------------------------------------------------------------------------------------- statistics


def random_entries() -> tuple[list[HistoryEntry], np.ndarray]:
    """Three requests of two choices with features 7 and 2, and all their numbers  # [tokens, 2]"""
    rng = np.random.default_rng(0)
    entries, tables = [], []
    for request in range(3):
        tracks = []
        for index in range(2):
            table = np.maximum(rng.lognormal(0, 3, (40, 2)) - 1, 0).astype(np.float32)
            track = ActivationTrack(index, "a", (7, 2), 5)
            for position, values in enumerate(table.tolist()):
                track.add(position, "t", values, (), (), ())
            tracks.append(track)
            tables.append(table)
        entries.append(HistoryEntry(replace(ROW, id=str(request)), tuple(tracks), 0))
    return entries, np.concatenate(tables)


def test_statistics_equal_numpy() -> None:
    entries, table = random_entries()
    found = {one.feature: one for one in feature_statistics(entries, EVERYTHING)}
    for feature, column in zip((7, 2), table.T.astype(np.float64), strict=True):
        one, fired = found[feature], column[column > 0]
        assert (one.tokens, one.fired) == (len(column), np.count_nonzero(column))
        assert one.frequency == pytest.approx(np.mean(column > 0))
        assert one.mean == pytest.approx(column.mean())
        assert one.mean_fired == pytest.approx(fired.mean())
        expected, _ = np.histogram(fired, bins=[0, *HISTOGRAM_EDGES, np.inf])
        assert one.histogram == tuple(expected.tolist())
        assert one.largest is not None
        place = int(column.argmax())
        assert one.largest.value == column.max()
        where = (int(one.largest.request_id) * 2 + one.largest.index) * 40 + one.largest.position
        assert where == place


def test_statistics_of_a_silent_feature() -> None:
    track = ActivationTrack(0, "a", (1, 2), 0)
    track.add(0, None, (0.0, 1.0), (), (), ())
    (one,) = feature_statistics([HistoryEntry(ROW, (track,), 0)], RequestFilter(feature=1))
    assert (one.feature, one.fired, one.mean_fired, one.largest, sum(one.histogram)) == (1, 0, 0.0, None, 0)


# -------------------------------------------------------------------------------------------------------------- files


def test_jsonl_and_csv_agree() -> None:
    track = ActivationTrack(1, "=a", (3, 4), 1)
    track.add(0, None, (0.5, 0.25), ((9, 2.0), (3, 0.5)), (0.0, 0.5), ())
    track.add(1, '=HYPERLINK("x")', (1.5, 0.0), (), (2.5, 1.0), ((4, 1.0),))
    entries = [HistoryEntry(replace(ROW, profile="@p", client="+c"), (track,), 0)]
    lines = [json.loads(line) for line in b"".join(export_jsonl(entries, EVERYTHING)).splitlines()]
    assert [line["schema"] for line in lines] == [EXPORT_SCHEMA] * 2
    assert [line["seen"]["generated"] for line in lines] == [False, True]
    assert lines[1]["seen"]["after"] == [2.5, 1.0]
    rows = list(csv.DictReader(io.StringIO(b"".join(export_csv(entries, EVERYTHING)).decode())))
    assert tuple(rows[0]) == CSV_COLUMNS
    watched = [(row["feature"], row["value"], row["after"]) for row in rows if row["from"] == "watched"]
    assert watched == [("3", "0.5", "0.0"), ("4", "0.25", "0.5"), ("3", "1.5", "2.5"), ("4", "0.0", "1.0")]
    top = [(row["feature"], row["value"], row["after"]) for row in rows if row["from"] == "top"]
    assert top == [("9", "2.0", ""), ("3", "0.5", ""), ("4", "", "1.0")]
    assert {row["profile"] for row in rows} == {"'@p"}
    assert {row["client"] for row in rows} == {"'+c"}
    assert rows[-1]["token"] == '\'=HYPERLINK("x")'
    assert {row["sae"] for row in rows} == {"'=a"}
    only = list(csv.DictReader(io.StringIO(b"".join(export_csv(entries, RequestFilter(feature=4))).decode())))
    assert {row["feature"] for row in only} == {"4"}
