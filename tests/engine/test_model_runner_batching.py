"""A request's output does not depend on other requests before or beside it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millm.engine.messages import Cancel, Finished, Generate, Reading, SamplingParams, SetActiveSteering
from millm.sae.steering import FeatureSetting, Positions, SaeSteering, Skip, Steering, Watch, coefficients
from tests.engine.engine_harness import Answer, EngineHarness, load

SYSTEM = tuple(range(40, 60))
PROMPTS = (
    (1, 80, 81, 82, 2, 90, 91, 33, 120, 45),
    (*SYSTEM, 7, 8, 9),
    (*SYSTEM, 7, 8, 100, 101, 102),
    (*SYSTEM, *range(200, 230)),
    (5,),
    tuple(range(300, 260, -1)),
)
NEW = 14


def steer(*settings_: tuple[int, float, str], positions: Positions = "all", skip: Skip = "bos") -> Steering:
    rows = tuple(
        coefficients(FeatureSetting(index=index, strength=strength, mode=mode))  # type: ignore[arg-type]
        for index, strength, mode in settings_
    )
    return Steering(by_sae=(SaeSteering("tiny", rows),), positions=positions, skip=skip)


STEERINGS: tuple[Steering | None, ...] = (
    None,
    steer((3, 8.0, "add"), (9, -4.0, "add")),
    steer((3, 8.0, "add"), (9, -4.0, "add"), positions="generated"),
    steer((3, 8.0, "add"), (9, -4.0, "add"), positions="prompt"),
    steer((5, 6.0, "add"), skip="special"),
    steer((5, 3.0, "clamp"), (8, 2.0, "add")),
    steer((11, 4.0, "min_clamp")),
    steer((2, 0.0, "scale"), (4, 0.0, "ablate")),
)
WATCHES: tuple[tuple[Watch, ...], ...] = (
    (),
    (),
    (Watch(sae="tiny", features=(3, 11, 40), tokens="generated"),),
    (Watch(sae="tiny", features=(7,), top_k=2, sample_every=1, tokens="all", when="after"),),
    (Watch(sae="tiny", features=(5, 11), top_k=3, sample_every=2, tokens="all", when="both"),),
)


def request(name: str, prompt: int, steering: int, watch: int, new: int = NEW) -> Generate:
    return Generate(
        id=name, prompt=PROMPTS[prompt], max_tokens=new, sampling=SamplingParams(temperature=0),
        steering=STEERINGS[steering], watch=WATCHES[watch],
    )  # fmt: skip


class Expected:
    """Results of single runs with the plain runner, cached."""

    def __init__(self, harness: EngineHarness) -> None:
        self._machine = harness
        self._known: dict[tuple[int, int, int, int], Answer] = {}

    def of(self, prompt: int, steering: int, watch: int, new: int = NEW) -> Answer:
        key = (prompt, steering, watch, new)
        if key not in self._known:
            self._machine.events.clear()
            self._machine.send(request("alone", *key))
            self._known[key] = self._machine.run_until({"alone"})["alone"]
        return self._known[key]


@pytest.fixture(scope="module")
def expected(alone: EngineHarness) -> Expected:
    return Expected(alone)


def assert_same(found: Answer, expected: Answer) -> None:
    assert found.tokens == expected.tokens
    assert isinstance(found.end, Finished)
    assert isinstance(expected.end, Finished)
    assert found.end.reason == expected.end.reason
    assert_same_receipt(found.end, expected.end)
    assert_same_readings(found.readings, expected.readings)


def assert_same_receipt(found: Finished, expected: Finished) -> None:
    assert (found.receipt is None) == (expected.receipt is None)
    if found.receipt and expected.receipt:
        assert found.receipt.fingerprint == expected.receipt.fingerprint
        assert found.receipt.tokens_steered == expected.receipt.tokens_steered
        assert found.receipt.delta_norm_ratio == pytest.approx(expected.receipt.delta_norm_ratio, rel=1e-4)


def assert_same_readings(found: Sequence[Reading], expected: Sequence[Reading]) -> None:
    assert [(reading.sae, reading.position) for reading in found] == [(r.sae, r.position) for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.values == pytest.approx(other.values, abs=2e-4)
        assert dict(one.top) == pytest.approx(dict(other.top), abs=2e-4)
        assert one.after == pytest.approx(other.after, abs=2e-4)
        assert dict(one.top_after) == pytest.approx(dict(other.top_after), abs=2e-4)


def test_sixteen_steerings_in_a_batch_match_single_runs(
    tiny_model: Path, tiny_sae: Path, canonical_root: Path, expected: Expected
) -> None:
    """16 distinct steerings in one batch; then again with cached prefixes."""
    wide = load(EngineHarness(), tiny_model, tiny_sae, canonical_root, runner="slots", slots=16)
    profiles = [steer((index, strength, "add")) for index in (3, 5, 8, 12) for strength in (6.0, -6.0)]
    profiles += [steer((index, 4.0, mode)) for index in (3, 5) for mode in ("clamp", "min_clamp", "scale", "ablate")]
    requests = [
        Generate(
            id=str(n), prompt=(*SYSTEM, 7, n), max_tokens=NEW, sampling=SamplingParams(temperature=0), steering=profile
        )
        for n, profile in enumerate(profiles)
    ]  # fmt: skip
    assert len({profile.fingerprint for profile in profiles}) == 16
    for cached in (False, True):
        wide.events.clear()
        wide.send(*requests)
        answers = wide.run_until({sent.id for sent in requests})
        for sent in requests:
            expected._machine.events.clear()
            expected._machine.send(sent)
            assert_same(answers[sent.id], expected._machine.run_until({sent.id})[sent.id])
            end = answers[sent.id].end
            assert isinstance(end, Finished)
            assert end.cached_tokens == (len(sent.prompt) - 1 if cached else 0)


arrivals = st.lists(
    st.tuples(
        st.integers(0, 25),  # turn of arrival
        st.integers(0, len(PROMPTS) - 1),
        st.integers(0, len(STEERINGS) - 1),
        st.integers(0, len(WATCHES) - 1),
        st.integers(1, NEW),  # tokens to generate
        st.none() | st.integers(0, 40),  # turn of cancellation
    ),
    min_size=1,
    max_size=7,
)


@given(arrivals=arrivals)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_batches_match_single_runs(
    batched: EngineHarness, expected: Expected, arrivals: list[tuple[int, int, int, int, int, int | None]]
) -> None:
    """Three rows, chunks of five tokens, random arrivals, lengths, steerings, watch lists and cancellations."""
    harness = batched
    harness.events.clear()
    names = {str(number) for number in range(len(arrivals))}
    for turn in range(41):
        for number, (at, prompt, steering, watch, new, cancel) in enumerate(arrivals):
            if at == turn:
                harness.send(request(str(number), prompt, steering, watch, new))
            if cancel == turn and cancel >= at:
                harness.send(Cancel(id=str(number)))
        harness.send()
        harness.engine.run_once()
    answers = harness.run_until(names)
    for number, (_, prompt, steering, watch, new, _) in enumerate(arrivals):
        found, single = answers[str(number)], expected.of(prompt, steering, watch, new)
        assert isinstance(found.end, Finished)
        if found.end.reason == "cancelled":
            assert found.tokens == single.tokens[: len(found.tokens)]
        else:
            assert_same(found, single)
    assert harness.engine.executor.scheduler.is_idle
    assert not harness.engine.executor.runner._slots.busy_slots  # type: ignore[union-attr]


def test_active_steering_changes_only_sequences_that_follow_it(batched: EngineHarness, expected: Expected) -> None:
    harness = batched
    harness.events.clear()
    base, push = STEERINGS[0], STEERINGS[1]
    follower = Generate(
        id="follower", prompt=PROMPTS[0], max_tokens=NEW, sampling=SamplingParams(temperature=0), follows_active=True
    )
    harness.send(follower, request("bystander", 0, 5, 0))
    for _ in range(6):
        harness.engine.run_once()
    so_far = len(harness.answers()["follower"].tokens)
    assert 0 < so_far < NEW
    harness.send(SetActiveSteering(steering=push))
    answers = harness.run_until({"follower", "bystander"})
    assert_same(answers["bystander"], expected.of(0, 5, 0))
    unsteered, moved = expected.of(0, 0, 0), answers["follower"]
    assert moved.tokens[:so_far] == unsteered.tokens[:so_far]
    assert moved.tokens != unsteered.tokens
    assert base is None
    assert isinstance(moved.end, Finished)
    assert moved.end.receipt is not None
    assert moved.end.receipt.fingerprint == push.fingerprint  # type: ignore[union-attr]
    assert moved.end.receipt.tokens_steered == NEW - so_far
    harness.events.clear()
    harness.send(request("again", 0, 1, 0), request("base", 0, 0, 0))
    answers = harness.run_until({"again", "base"})
    assert_same(answers["again"], expected.of(0, 1, 0))
    assert_same(answers["base"], unsteered)
