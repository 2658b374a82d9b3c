"""What is given up when memory runs out, in which order; rows that overflow; and that nobody else pays for it."""

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
from tests.engine.machine import CALIBRATION, Answer, Machine, load
from tests.engine.test_batching import NEW, PROMPTS, STEERINGS, request, steer

WATCH = (Watch(sae="tiny", features=(3, 11), top_k=2, sample_every=1, tokens="all"),)
BASES = [request(f"base-{number}", number, 0, 0) for number in range(3)]
FULL = replace(request("full", 1, 5, 0), watch=WATCH)
"""Steered, watching and reading whole dictionaries."""


class Faulty(Machine):
    """Three rows, prompts in chunks of five tokens, faults allowed."""

    def inject(self, point: FaultPoint, *, after: int = 0, times: int = 1) -> None:
        self.say(InjectFault(id="fault", point=point, kind="oom", after=after, times=times))

    def ask(self, *requests: Generate) -> dict[str, Answer]:
        self.events.clear()
        self.say(*requests)
        return self.run_until({one.id for one in requests})

    def attach(self, sae: Path, home: Path) -> None:
        self.do(
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
def machine(
    request: pytest.FixtureRequest, testing: pytest.MonkeyPatch, tiny_model: Path, tiny_sae: Path, canonical_root: Path
) -> Machine:
    return load(Faulty(), tiny_model, tiny_sae, canonical_root, runner=request.param, slots=3)


@pytest.fixture(scope="module")
def bare(testing: pytest.MonkeyPatch, tiny_model: Path) -> Faulty:
    """Without any SAE."""
    machine = Faulty()
    machine.do(LoadModel(id="load", path=str(tiny_model), runner="slots", slots=3))
    return machine


def receipt_of(answer: Answer) -> SteeringReceipt | None:
    assert isinstance(answer.end, Finished), answer.end
    return answer.end.receipt


# ------------------------------------------------------------------------------------------------ in which order


@pytest.mark.parametrize("after", [0, 3])
def test_the_optional_goes_first(machine: Faulty, tiny_sae: Path, canonical_root: Path, after: int) -> None:
    """`top_k`, then watching, then the SAE, then who came last; the base model's answer is its answer throughout."""
    whole, alone = (machine.ask(one)[one.id] for one in (FULL, BASES[0]))
    unsteered = machine.ask(replace(FULL, steering=None, watch=()))["full"]
    told = [machine_after(machine, after, times, alone) for times in (1, 2, 3)]
    machine.attach(tiny_sae, canonical_root)
    assert [receipt.degraded for _, receipt in told] == [TOP_K_DISABLED, WATCHING_DISABLED, SAES_DISABLED]
    without_top_k, without_watching, without_sae = (answer for answer, _ in told)
    assert without_top_k.tokens == without_watching.tokens == whole.tokens != unsteered.tokens
    assert [reading.values for reading in without_top_k.readings] == [
        pytest.approx(reading.values, abs=2e-4) for reading in whole.readings
    ]
    assert any(reading.top for reading in whole.readings)
    assert not without_top_k.readings[-1].top
    assert len(without_watching.readings) < len(whole.readings)
    assert len(without_sae.readings) < len(whole.readings)
    if after == 0:
        assert without_sae.tokens == unsteered.tokens


def machine_after(machine: Faulty, after: int, times: int, alone: Answer) -> tuple[Answer, SteeringReceipt]:
    """The answer of who asks for everything, beside the base model, when memory runs out so often in a row."""
    machine.inject("prefill" if after == 0 else "decode", after=after, times=times)
    answers = machine.ask(FULL, BASES[0])
    assert answers[BASES[0].id].tokens == alone.tokens
    assert receipt_of(answers[BASES[0].id]) is None
    degraded = [event.reason for event in machine.events if isinstance(event, EngineDegraded)]
    assert degraded == ([SAES_DISABLED] if times == 3 else [])
    receipt = receipt_of(answers["full"])
    assert receipt is not None
    assert (receipt.fingerprint == "") == (times == 3)
    return answers["full"], receipt


def test_who_waits_keeps_what_was_only_taken_from_those_who_ran(machine: Faulty) -> None:
    """The second one starts after the shortage, and gets what it asked for."""
    whole = machine.ask(FULL)["full"]
    machine.inject("decode", after=1)
    machine.events.clear()
    machine.say(FULL)
    while not any(isinstance(event, Finished | CommandFailed) for event in machine.events):
        machine.engine.run_once()
    first = machine.answers()["full"]
    receipt = receipt_of(first)
    assert receipt is not None
    assert receipt.degraded == TOP_K_DISABLED
    second = machine.ask(FULL)["full"]
    assert second.tokens == whole.tokens
    assert [bool(reading.top) for reading in second.readings] == [bool(reading.top) for reading in whole.readings]


def test_who_follows_what_is_active_goes_on_when_a_slider_moves_a_turned_off_sae(
    machine: Faulty, tiny_sae: Path, canonical_root: Path
) -> None:
    unsteered = machine.ask(BASES[0])[BASES[0].id]
    follower = replace(BASES[0], id="follower", steering=STEERINGS[1], follows_active=True)
    machine.inject("decode", after=1)
    machine.events.clear()
    machine.say(follower)
    while not any(isinstance(event, EngineDegraded) for event in machine.events):
        machine.engine.run_once()
    machine.say(SetActiveSteering(steering=STEERINGS[5]), replace(follower, id="late"))
    machine.engine.run_once()
    machine.say(SetActiveSteering(steering=STEERINGS[1]))
    answers = machine.run_until({"follower", "late"})
    assert len(answers["follower"].tokens) == NEW
    assert answers["late"].tokens == unsteered.tokens
    for answer in (answers["follower"], answers["late"]):
        receipt = receipt_of(answer)
        assert receipt is not None
        assert receipt.degraded == SAES_DISABLED
    machine.attach(tiny_sae, canonical_root)


# ------------------------------------------------------------------------------------------------ who has to wait


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("point", ["prefill", "decode"])
def test_the_youngest_waits_and_begins_again(bare: Faulty, point: FaultPoint, times: int) -> None:
    """Wherever it happens: every answer is what it is alone, and the rows are free afterwards."""
    requests = [*BASES, replace(BASES[0], id="more", prompt=(9, 9, 9), max_tokens=3)]
    expected = {one.id: bare.ask(one)[one.id].tokens for one in requests}
    for after in range(14 if point == "decode" else 4 - times):  # later, somebody would be alone
        bare.inject(point, after=after, times=times)
        answers = bare.ask(*requests)
        assert {name: answer.tokens for name, answer in answers.items()} == expected
        assert all(receipt_of(answer) is None for answer in answers.values())
        assert bare.engine.executor.scheduler.is_idle
        assert not bare.engine.executor.runner._slots.busy_slots  # type: ignore[union-attr]


def test_one_that_is_alone_fails_and_who_waited_for_it_goes_on(bare: Faulty) -> None:
    """Three run, two are made to wait, the third fails; the two finish as if nothing had been."""
    expected = {one.id: bare.ask(one)[one.id].tokens for one in BASES}
    bare.inject("decode", after=12, times=3)
    answers = bare.ask(*BASES)
    failed = {name: answer.end for name, answer in answers.items() if isinstance(answer.end, CommandFailed)}
    assert [end.code for end in failed.values()] == ["insufficient_memory"]
    assert list(failed) == [BASES[0].id], "the oldest was the last to run"
    assert all(answers[name].tokens == tokens for name, tokens in expected.items() if name not in failed)
    assert {name: answer.tokens for name, answer in bare.ask(*BASES).items()} == expected


@pytest.mark.parametrize("failing", range(8))
def test_no_memory_for_a_longer_row_is_one_request_s_failure(bare: Faulty, tiny_model: Path, failing: int) -> None:
    """Whichever of the layers' keys and values it is; beside it others decode, and the next long one has room."""
    short, long = [replace(one, max_tokens=4, prompt=one.prompt[:9]) for one in BASES[:2]], request("long", 5, 0, 0)
    expected = {one.id: bare.ask(one)[one.id].tokens for one in (*short, BASES[2])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots_runner, "MIN_CACHE_COLUMNS", 16)
        machine = Faulty()
        machine.do(LoadModel(id="load", path=str(tiny_model), runner="slots", slots=3, kv_cache_bytes=64 * 768 * 3))
        machine.events.clear()
        machine.say(*short)
        machine.engine.run_once()
        machine.engine.run_once()
        assert machine.engine.executor.runner.cache.length == 16  # type: ignore[union-attr]
        with pytest.MonkeyPatch.context() as shortage:
            shortage.setattr(caching, "_zeros", Shortage(failing))
            machine.say(long)
            answers = machine.run_until({"long"})
            assert isinstance(answers["long"].end, CommandFailed)
            assert answers["long"].end.code == "insufficient_memory"
        machine.say(BASES[2])
        answers = machine.run_until(expected.keys())
        assert {name: answers[name].tokens for name in expected} == expected
        assert isinstance(machine.ask(long)["long"].end, Finished)
        assert {one.id: machine.ask(one)[one.id].tokens for one in (*short, BASES[2])} == expected


@pytest.mark.parametrize("failing", range(8))
def test_no_memory_for_one_more_row_is_one_request_s_failure(bare: Faulty, tiny_model: Path, failing: int) -> None:
    """A long sequence left few rows; two short ones have them, and a third would need the cache in another shape."""
    short = [replace(one, max_tokens=6, prompt=one.prompt[:9]) for one in BASES]
    expected = {one.id: bare.ask(one)[one.id].tokens for one in short}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots_runner, "MIN_CACHE_COLUMNS", 16)
        machine = Faulty()
        machine.do(LoadModel(id="load", path=str(tiny_model), runner="slots", slots=3, kv_cache_bytes=64 * 768 * 2))
        machine.ask(request("long", 5, 0, 0))
        runner = machine.engine.executor.runner
        assert (runner.cache.rows, runner.cache.length) == (2, 64)  # type: ignore[union-attr]
        machine.events.clear()
        machine.say(*short[:2])
        machine.engine.run_once()
        with pytest.MonkeyPatch.context() as shortage:
            shortage.setattr(caching, "_zeros", Shortage(failing))
            machine.say(replace(short[2], id="one more"))
            answers = machine.run_until({"one more"})
            assert isinstance(answers["one more"].end, CommandFailed)
            assert answers["one more"].end.code == "insufficient_memory"
        machine.say(short[2])
        answers = machine.run_until(expected.keys())
        assert {name: answers[name].tokens for name in expected} == expected
        assert (runner.cache.rows, runner.cache.length) == (3, 16)  # type: ignore[union-attr]


class Shortage:
    """Zeros for the cache, so many times; then there are none left."""

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
def half(testing: pytest.MonkeyPatch, tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> Machine:
    """In float16 the largest strength that is allowed overflows."""
    return load(Faulty(), tiny_model, tiny_sae, canonical_root, runner="slots", slots=3, dtype="float16")


def assert_finite(machine: Faulty) -> None:
    for tensor in machine.engine.executor.runner.cache._tensors():  # type: ignore[union-attr]
        assert bool(torch.isfinite(tensor).all())


TOO_STRONG = steer((3, 1e6, "add"), (9, -1e6, "add"))


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_an_overflow_ends_its_own_request_and_leaves_nothing(half: Faulty, positions: str) -> None:
    """Beside two others, in one batch; then its row is used again, and its prompt asked for again."""
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


def test_an_overflow_in_the_middle_of_a_batch_stays_in_its_row(half: Faulty) -> None:
    """One that follows the active steering overflows while others decode in the same pass, whatever row it has."""
    expected = {one.id: half.ask(one)[one.id].tokens for one in BASES}
    for place in range(3):
        half.events.clear()
        requests = [replace(one, follows_active=index == place) for index, one in enumerate(BASES)]
        half.say(*requests)
        while not all(len(half.answers().get(one.id, Answer()).tokens) for one in BASES):
            half.engine.run_once()
        half.say(SetActiveSteering(steering=TOO_STRONG))
        half.engine.run_once()
        half.say(replace(BASES[place], id="next"))
        answers = half.run_until({"next", *expected})
        end = answers[BASES[place].id].end
        assert isinstance(end, CommandFailed)
        assert end.code == "non_finite_output"
        assert answers.pop("next").tokens == expected[BASES[place].id]
        for name in expected.keys() - {BASES[place].id}:
            assert answers[name].tokens == expected[name]
        assert_finite(half)


def test_what_overflowed_is_never_gone_on_from(half: Faulty) -> None:
    """A longer prompt that begins with the one that overflowed, under the same steering, overflows by itself."""
    strong = replace(BASES[2], id="strong", steering=TOO_STRONG)
    for name in ("strong", "again"):
        end = half.ask(replace(strong, id=name, prompt=(*PROMPTS[2], *range(60, 70))))[name].end
        assert isinstance(end, CommandFailed)
        assert end.code == "non_finite_output"
        slots = half.engine.executor.runner._slots  # type: ignore[union-attr]
        (left,) = [slot for slot in slots if slot.steering == (TOO_STRONG.by_sae, False)]
        assert (left.is_busy, left.finite_count, left.token_keys) == (False, 0, [])
    assert_finite(half)
