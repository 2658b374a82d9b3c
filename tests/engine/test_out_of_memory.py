"""Degradation when memory runs out, and overflows, without effects on other sequences."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from millm.engine import kv_cache as caching
from millm.engine import model_runner as slots_runner
from millm.engine.messages import (
    AttachSae,
    CommandFailed,
    EngineDegraded,
    FaultPoint,
    Finished,
    Generate,
    InjectFault,
    LoadModel,
    SaeAttached,
    SetActiveSteering,
    SteeringReceipt,
)
from millm.engine.out_of_memory import SAES_DISABLED, TOP_K_DISABLED, WATCHING_DISABLED
from millm.sae.steering import Watch
from tests.engine.engine_harness import CALIBRATION, Answer, EngineHarness, load
from tests.engine.test_model_runner_batching import NEW, PROMPTS, STEERINGS, request, steer

WATCH = (Watch(sae="tiny", features=(3, 11), top_k=2, sample_every=1, tokens="all"),)
BASES = [request(f"base-{number}", number, 0, 0) for number in range(3)]
FULL = replace(request("full", 1, 5, 0), watch=WATCH)
"""Steered, watched, and with `top_k`."""


class Faulty(EngineHarness):
    """Three rows, prompts in chunks of five tokens, faults allowed."""

    def inject(self, point: FaultPoint, *, after: int = 0, times: int = 1) -> None:
        self.send(InjectFault(id="fault", point=point, kind="oom", after=after, times=times))

    def ask(self, *requests: Generate) -> dict[str, Answer]:
        self.events.clear()
        self.send(*requests)
        return self.run_until({one.id for one in requests})

    def attach(self, sae: Path, home: Path) -> None:
        self.execute(
            AttachSae(
                id="attach", sae="tiny", path=str(sae), canonical_root=str(home), calibration_ids=CALIBRATION,
                model_name="tiny-llama",
            )
        )  # fmt: skip
        assert [event for event in self.events if isinstance(event, SaeAttached)]
        self.events.clear()


@pytest.fixture(scope="module")
def testing() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLM_TESTING_FAULTS", "1")
        patch.setitem(slots_runner.PREFILL_CHUNK_TOKENS, "cpu", 5)
        yield patch


@pytest.fixture(scope="module", params=["slots", "plain"])
def harness(
    request: pytest.FixtureRequest, testing: pytest.MonkeyPatch, tiny_model: Path, tiny_sae: Path, canonical_root: Path
) -> EngineHarness:
    return load(Faulty(), tiny_model, tiny_sae, canonical_root, runner=request.param, slots=3)


@pytest.fixture(scope="module")
def bare(testing: pytest.MonkeyPatch, tiny_model: Path) -> Faulty:
    """Without any SAE."""
    harness = Faulty()
    harness.execute(LoadModel(id="load", path=str(tiny_model), runner="slots", slots=3))
    return harness


def receipt_of(answer: Answer) -> SteeringReceipt | None:
    assert isinstance(answer.end, Finished), answer.end
    return answer.end.receipt


# ------------------------------------------------------------------------------------------------ in which order


@pytest.mark.parametrize("after", [0, 3])
def test_degradation_turns_off_optional_features_first(
    harness: Faulty, tiny_sae: Path, canonical_root: Path, after: int
) -> None:
    """`top_k`, then watching, then the SAEs, then the youngest sequence; unsteered output never changes."""
    full, alone = (harness.ask(one)[one.id] for one in (FULL, BASES[0]))
    unsteered = harness.ask(replace(FULL, steering=None, watch=()))["full"]
    degraded = [run_with_shortage(harness, after, times, alone) for times in (1, 2, 3)]
    harness.attach(tiny_sae, canonical_root)
    assert [receipt.degraded for _, receipt in degraded] == [TOP_K_DISABLED, WATCHING_DISABLED, SAES_DISABLED]
    without_top_k, without_watching, without_sae = (answer for answer, _ in degraded)
    assert without_top_k.tokens == without_watching.tokens == full.tokens != unsteered.tokens
    assert [reading.values for reading in without_top_k.readings] == [
        pytest.approx(reading.values, abs=2e-4) for reading in full.readings
    ]
    assert any(reading.top for reading in full.readings)
    assert not without_top_k.readings[-1].top
    assert len(without_watching.readings) < len(full.readings)
    assert len(without_sae.readings) < len(full.readings)
    if after == 0:
        assert without_sae.tokens == unsteered.tokens


def run_with_shortage(harness: Faulty, after: int, times: int, alone: Answer) -> tuple[Answer, SteeringReceipt]:
    """Result of FULL beside an unsteered request, when memory runs out `times` in a row."""
    harness.inject("prefill" if after == 0 else "decode", after=after, times=times)
    answers = harness.ask(FULL, BASES[0])
    assert answers[BASES[0].id].tokens == alone.tokens
    assert receipt_of(answers[BASES[0].id]) is None
    degraded = [event.reason for event in harness.events if isinstance(event, EngineDegraded)]
    assert degraded == ([SAES_DISABLED] if times == 3 else [])
    receipt = receipt_of(answers["full"])
    assert receipt is not None
    assert (receipt.fingerprint == "") == (times == 3)
    return answers["full"], receipt


def test_queued_sequence_is_not_degraded(harness: Faulty) -> None:
    """The second one starts after the shortage, with all its features."""
    full = harness.ask(FULL)["full"]
    harness.inject("decode", after=1)
    harness.events.clear()
    harness.send(FULL)
    while not any(isinstance(event, Finished | CommandFailed) for event in harness.events):
        harness.engine.run_once()
    first = harness.answers()["full"]
    receipt = receipt_of(first)
    assert receipt is not None
    assert receipt.degraded == TOP_K_DISABLED
    second = harness.ask(FULL)["full"]
    assert second.tokens == full.tokens
    assert [bool(reading.top) for reading in second.readings] == [bool(reading.top) for reading in full.readings]


def test_follower_continues_when_steering_names_a_disabled_sae(
    harness: Faulty, tiny_sae: Path, canonical_root: Path
) -> None:
    unsteered = harness.ask(BASES[0])[BASES[0].id]
    follower = replace(BASES[0], id="follower", steering=STEERINGS[1], follows_active=True)
    harness.inject("decode", after=1)
    harness.events.clear()
    harness.send(follower)
    while not any(isinstance(event, EngineDegraded) for event in harness.events):
        harness.engine.run_once()
    harness.send(SetActiveSteering(steering=STEERINGS[5]), replace(follower, id="late"))
    harness.engine.run_once()
    harness.send(SetActiveSteering(steering=STEERINGS[1]))
    answers = harness.run_until({"follower", "late"})
    assert len(answers["follower"].tokens) == NEW
    assert answers["late"].tokens == unsteered.tokens
    for answer in (answers["follower"], answers["late"]):
        receipt = receipt_of(answer)
        assert receipt is not None
        assert receipt.degraded == SAES_DISABLED
    harness.attach(tiny_sae, canonical_root)


# ------------------------------------------------------------------------------------------------ who has to wait


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("point", ["prefill", "decode"])
def test_youngest_sequence_is_preempted_and_restarts(bare: Faulty, point: FaultPoint, times: int) -> None:
    """At any point, every output matches its single run, and the rows are free afterwards."""
    requests = [*BASES, replace(BASES[0], id="more", prompt=(9, 9, 9), max_tokens=3)]
    expected = {one.id: bare.ask(one)[one.id].tokens for one in requests}
    for after in range(14 if point == "decode" else 4 - times):  # later, somebody would be alone
        bare.inject(point, after=after, times=times)
        answers = bare.ask(*requests)
        assert {name: answer.tokens for name, answer in answers.items()} == expected
        assert all(receipt_of(answer) is None for answer in answers.values())
        assert bare.engine.executor.scheduler.is_idle
        assert not bare.engine.executor.runner._slots.busy_slots  # type: ignore[union-attr]


def test_single_sequence_fails_and_preempted_ones_continue(bare: Faulty) -> None:
    """Of three running sequences two are preempted, the third fails, and the two finish unchanged."""
    expected = {one.id: bare.ask(one)[one.id].tokens for one in BASES}
    bare.inject("decode", after=12, times=3)
    answers = bare.ask(*BASES)
    failed = {name: answer.end for name, answer in answers.items() if isinstance(answer.end, CommandFailed)}
    assert [end.code for end in failed.values()] == ["insufficient_memory"]
    assert list(failed) == [BASES[0].id], "the oldest was the last to run"
    assert all(answers[name].tokens == tokens for name, tokens in expected.items() if name not in failed)
    assert {name: answer.tokens for name, answer in bare.ask(*BASES).items()} == expected


@pytest.mark.parametrize("failing", range(8))
def test_failed_allocation_of_longer_rows_fails_one_request(bare: Faulty, tiny_model: Path, failing: int) -> None:
    """At any layer's keys or values; others decode beside it, and the next long request succeeds."""
    short, long = [replace(one, max_tokens=4, prompt=one.prompt[:9]) for one in BASES[:2]], request("long", 5, 0, 0)
    expected = {one.id: bare.ask(one)[one.id].tokens for one in (*short, BASES[2])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots_runner, "MIN_CACHE_COLUMNS", 16)
        harness = Faulty()
        harness.execute(
            LoadModel(id="load", path=str(tiny_model), runner="slots", slots=3, kv_cache_bytes=64 * 768 * 3)
        )
        harness.events.clear()
        harness.send(*short)
        harness.engine.run_once()
        harness.engine.run_once()
        assert harness.engine.executor.runner.cache.length == 16  # type: ignore[union-attr]
        with pytest.MonkeyPatch.context() as shortage:
            shortage.setattr(caching, "_zeros", Shortage(failing))
            harness.send(long)
            answers = harness.run_until({"long"})
            assert isinstance(answers["long"].end, CommandFailed)
            assert answers["long"].end.code == "insufficient_memory"
        harness.send(BASES[2])
        answers = harness.run_until(expected.keys())
        assert {name: answers[name].tokens for name in expected} == expected
        assert isinstance(harness.ask(long)["long"].end, Finished)
        assert {one.id: harness.ask(one)[one.id].tokens for one in (*short, BASES[2])} == expected


@pytest.mark.parametrize("failing", range(8))
def test_failed_allocation_of_another_row_fails_one_request(bare: Faulty, tiny_model: Path, failing: int) -> None:
    """Two short sequences occupy the rows that a long one left; a third needs a resize."""
    short = [replace(one, max_tokens=6, prompt=one.prompt[:9]) for one in BASES]
    expected = {one.id: bare.ask(one)[one.id].tokens for one in short}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots_runner, "MIN_CACHE_COLUMNS", 16)
        harness = Faulty()
        harness.execute(
            LoadModel(id="load", path=str(tiny_model), runner="slots", slots=3, kv_cache_bytes=64 * 768 * 2)
        )
        harness.ask(request("long", 5, 0, 0))
        runner = harness.engine.executor.runner
        assert (runner.cache.rows, runner.cache.length) == (2, 64)  # type: ignore[union-attr]
        harness.events.clear()
        harness.send(*short[:2])
        harness.engine.run_once()
        with pytest.MonkeyPatch.context() as shortage:
            shortage.setattr(caching, "_zeros", Shortage(failing))
            harness.send(replace(short[2], id="one more"))
            answers = harness.run_until({"one more"})
            assert isinstance(answers["one more"].end, CommandFailed)
            assert answers["one more"].end.code == "insufficient_memory"
        harness.send(short[2])
        answers = harness.run_until(expected.keys())
        assert {name: answers[name].tokens for name in expected} == expected
        assert (runner.cache.rows, runner.cache.length) == (3, 16)  # type: ignore[union-attr]


class Shortage:
    """Allocates `left` times, then raises OutOfMemoryError."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._zeros = caching._zeros

    def __call__(self, like: torch.Tensor, rows: int, length: int) -> torch.Tensor:
        self._left -= 1
        if self._left < 0:
            raise torch.OutOfMemoryError("injected")
        return self._zeros(like, rows, length)


# --------------------------------------------------------------------------------------------- not finite any more


@pytest.fixture(scope="module")
def half(testing: pytest.MonkeyPatch, tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> EngineHarness:
    """In float16, where the largest allowed strength overflows."""
    return load(Faulty(), tiny_model, tiny_sae, canonical_root, runner="slots", slots=3, dtype="float16")


def assert_finite(harness: Faulty) -> None:
    for tensor in harness.engine.executor.runner.cache._tensors():  # type: ignore[union-attr]
        assert bool(torch.isfinite(tensor).all())


TOO_STRONG = steer((3, 1e6, "add"), (9, -1e6, "add"))


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_overflow_fails_only_its_request(half: Faulty, positions: str) -> None:
    """Beside two others in one batch; then its row and its prompt are used again."""
    expected = {one.id: half.ask(one)[one.id].tokens for one in BASES}
    strong = replace(BASES[2], id="strong", steering=replace(TOO_STRONG, positions=positions))
    for _ in range(4):
        answers = half.ask(BASES[0], strong, BASES[1])
        end = answers["strong"].end
        assert isinstance(end, CommandFailed)
        assert end.code == "non_finite_output"
        for other in BASES[:2]:
            assert answers[other.id].tokens == expected[other.id]
        assert_finite(half)
        assert {name: answer.tokens for name, answer in half.ask(*BASES).items()} == expected


def test_overflow_in_a_batch_stays_in_its_row(half: Faulty) -> None:
    """A follower of the active steering overflows in any row while others decode in the same pass."""
    expected = {one.id: half.ask(one)[one.id].tokens for one in BASES}
    for place in range(3):
        half.events.clear()
        requests = [replace(one, follows_active=index == place) for index, one in enumerate(BASES)]
        half.send(*requests)
        while not all(len(half.answers().get(one.id, Answer()).tokens) for one in BASES):
            half.engine.run_once()
        half.send(SetActiveSteering(steering=TOO_STRONG))
        half.engine.run_once()
        half.send(replace(BASES[place], id="next"))
        answers = half.run_until({"next", *expected})
        end = answers[BASES[place].id].end
        assert isinstance(end, CommandFailed)
        assert end.code == "non_finite_output"
        assert answers.pop("next").tokens == expected[BASES[place].id]
        for name in expected.keys() - {BASES[place].id}:
            assert answers[name].tokens == expected[name]
        assert_finite(half)


def test_overflowed_prefix_is_not_reused(half: Faulty) -> None:
    """A longer prompt with the overflowed prefix and the same steering overflows by itself."""
    strong = replace(BASES[2], id="strong", steering=TOO_STRONG)
    for name in ("strong", "again"):
        end = half.ask(replace(strong, id=name, prompt=(*PROMPTS[2], *range(60, 70))))[name].end
        assert isinstance(end, CommandFailed)
        assert end.code == "non_finite_output"
        slots = half.engine.executor.runner._slots  # type: ignore[union-attr]
        (left,) = [slot for slot in slots if slot.steering == (TOO_STRONG.by_sae, False)]
        assert (left.is_busy, left.finite_count, left.token_keys) == (False, 0, [])
    assert_finite(half)
