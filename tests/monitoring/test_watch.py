"""Merged watches: each view equals a separate watch."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.engine.messages import Reading
from millm.monitoring.watch import WatchPlan, covers, merge_watches
from millm.sae.config import MAX_WATCHED_FEATURES
from millm.sae.steering import Watch

PROMPT, LENGTH, FEATURES = 5, 12, 9


def activation(position: int, feature: int, after: bool) -> float:
    return float((position * 7 + feature * 5) % 11) + (100 if after and feature % 2 else 0)


def reading(watch: Watch, position: int) -> Reading:
    """The engine's reading at one token."""
    both = [_side(watch, position, after) for after in (False, True)]
    before, after = both if watch.when == "both" else (both[watch.when == "after"], ((), ()))
    return Reading(watch.sae, position, before[0], before[1], after[0], after[1])


def _side(watch: Watch, position: int, after: bool) -> Any:
    values = tuple(activation(position, feature, after) for feature in watch.features)
    ranked = sorted(((f, activation(position, f, after)) for f in range(FEATURES)), key=lambda pair: -pair[1])
    is_due = watch.top_k and position % (watch.sample_every or 1) == 0
    return values, tuple(ranked[: watch.top_k]) if is_due else ()


def readings(watches: tuple[Watch, ...]) -> list[Reading]:
    return [
        reading(watch, position)
        for position in range(LENGTH)
        for watch in watches
        if covers(watch.tokens, position, PROMPT)
    ]


def watch_of(sae: str) -> st.SearchStrategy[Watch]:
    features = st.lists(st.integers(0, FEATURES - 1), unique=True, min_size=1, max_size=5).map(tuple)
    top_k = st.integers(0, 4)
    created = st.builds(
        Watch, sae=st.just(sae), features=features, top_k=top_k,
        tokens=st.sampled_from(["generated", "prompt", "all"]), when=st.sampled_from(["before", "after", "both"]),
        sample_every=st.integers(1, 6),
    )  # fmt: skip
    return created.filter(lambda watch: watch.features or watch.top_k)


lists = st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3).flatmap(
    lambda names: st.tuples(*map(watch_of, names))
)


@given(requested=lists, monitored=lists)
def test_merged_watches_equal_separate_ones(requested: tuple[Watch, ...], monitored: tuple[Watch, ...]) -> None:
    watching = merge_watches(requested, monitored)
    assert len({watch.sae for watch in watching.engine_watches}) == len(watching.engine_watches), "one of each SAE"
    read = readings(watching.engine_watches)
    assert by_place(watching.request_readings(read, PROMPT)) == by_place(readings(requested))
    assert by_place(watching.recorded_readings(read, PROMPT)) == by_place(readings(monitored or requested))


def by_place(found: Any) -> dict[tuple[str, int], Reading]:
    return {(one.sae, one.position): one for one in found}


def test_empty_plan_watches_nothing() -> None:
    assert merge_watches((), ()) == WatchPlan()
    assert merge_watches((), ()).engine_watches == ()


def test_request_watch_has_priority_over_monitor() -> None:
    requested = Watch(sae="a", features=tuple(range(MAX_WATCHED_FEATURES - 1)))
    monitored = Watch(sae="a", features=(0, MAX_WATCHED_FEATURES, MAX_WATCHED_FEATURES + 1))
    watching = merge_watches([requested], [monitored])
    assert watching.recorded_watches[0].features == (0, MAX_WATCHED_FEATURES)
    assert len(watching.engine_watches[0].features) == MAX_WATCHED_FEATURES


@pytest.mark.parametrize("optional", [False, True])
def test_request_watch_is_never_optional(optional: bool) -> None:
    mine = Watch(sae="a", features=(1,), optional=optional)
    assert merge_watches([mine], [Watch(sae="a", features=(2,), optional=True)]).engine_watches[0].optional == optional
