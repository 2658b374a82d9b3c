"""Injected out-of-memory errors, exceptions and hangs in a real engine process."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from millm.engine.client import EngineClient
from millm.engine.messages import AttachSae, FaultPoint, Finished, Generate, InjectFault, LoadModel, Token
from millm.engine.out_of_memory import SAES_DISABLED
from millm.errors import (
    EngineCrashed,
    EngineFailed,
    InsufficientMemory,
    InvalidRequest,
    MillmError,
    SaeDetached,
    SaeMismatch,
    Timeout,
)
from millm.sae.steering import Watch
from tests.engine.conftest import Engine, Loop, collect, start
from tests.engine.engine_harness import CALIBRATION
from tests.engine.test_client import until_ready
from tests.engine.test_core_generation import PROMPT, PUSH, hooked, request
from tests.fixtures.tiny import write_sae

ROUNDS = (6, pytest.param(50, marks=pytest.mark.crashes))
NEW = 8
OTHER = (7, 90, 33, 21, 120)
Answer = list[Token | Finished] | MillmError


class Faulty(Engine):
    """An engine with fault injection, and recovery from its degradation."""

    def __init__(self, loop: Loop, client: EngineClient, sae: Path, canonical_root: Path) -> None:
        super().__init__(loop, client)
        self._sae = sae
        self._canonical_root = canonical_root
        self._ids = itertools.count()

    def inject(self, point: FaultPoint, kind: str, *, after: int = 0, times: int = 1) -> None:
        fault = InjectFault(id=f"fault-{next(self._ids)}", point=point, kind=kind, after=after, times=times)  # type: ignore[arg-type]
        self.loop.run(self.client.inject(fault))

    def attach(self, name: str = "tiny", sae: Path | None = None, hook_point: str | None = None) -> None:
        self.loop.run(self.client.attach(self.attaching(name, sae, hook_point)))

    def attaching(self, name: str = "tiny", sae: Path | None = None, hook_point: str | None = None) -> AttachSae:
        return AttachSae(
            id=f"attach-{next(self._ids)}", sae=name, path=str(sae or self._sae), hook_point=hook_point,
            canonical_root=str(self._canonical_root), calibration_ids=CALIBRATION, model_name="tiny-llama",
        )  # fmt: skip

    def ask(self, *requests: Generate) -> list[Answer]:
        """All at once; → the events of each, or its error."""

        async def one(request: Generate) -> Answer:
            try:
                return await collect(self.client.generate(request))
            except MillmError as error:
                return error

        async def together() -> list[Answer]:
            return await asyncio.gather(*map(one, requests))

        return self.loop.run(together())

    @property
    def resident_bytes(self) -> int:
        assert self.client.pid
        return int(psutil.Process(self.client.pid).memory_info().rss)


def steered(name: str = "steered", **more: object) -> Generate:
    return request(name, PUSH, max_tokens=NEW, **more)


def base(name: str = "base", **more: object) -> Generate:
    return request(name, max_tokens=NEW, **more)


def tokens_of(answer: Answer) -> list[int]:
    assert isinstance(answer, list), answer
    return [event.token for event in answer if isinstance(event, Token)]


def end_of(answer: Answer) -> Finished:
    assert isinstance(answer, list), answer
    end = answer[-1]
    assert isinstance(end, Finished)
    return end


@pytest.fixture(scope="module", params=["slots", "plain"])
def faulty(
    request: pytest.FixtureRequest, loop: Loop, tiny_model: Path, tiny_sae: Path, canonical_root: Path
) -> Iterator[Faulty]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLM_TESTING_FAULTS", "1")
        client = loop.run(start(tiny_model, tiny_sae, canonical_root))
    again = LoadModel(id="again", path=str(tiny_model), special_ids=(0, 1, 2), runner=request.param)
    assert loop.run(client.load(again)).runner == request.param
    engine = Faulty(loop, client, tiny_sae, canonical_root)
    engine.attach()
    yield engine
    loop.run(client.close())


@pytest.fixture(scope="module")
def oracle(reference: LlamaForCausalLM, tiny_sae: Path) -> "Oracle":
    return Oracle(reference, load_file(tiny_sae / "sae_weights.safetensors")["W_dec"])


class Oracle:
    """Output of plain transformers, steered by PUSH at the first positions only."""

    def __init__(self, model: LlamaForCausalLM, decoder: Tensor) -> None:
        self._model = model
        self._delta = 8.0 * decoder[3] - 4.0 * decoder[9]
        self._known: dict[object, list[int]] = {}

    def until(self, position: int, start: tuple[int, ...] = PROMPT, new: int = NEW) -> list[int]:
        key = (position, start, new)
        if key not in self._known:
            ids = list(start)
            for _ in range(new):
                with torch.inference_mode(), hooked(self._model, self._steer_before(position)):
                    ids.append(int(self._model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            self._known[key] = ids[len(start) :]
        return self._known[key]

    def _steer_before(self, position: int) -> Callable[[Tensor], Tensor]:
        def steer(hidden: Tensor) -> Tensor:
            hidden = hidden.clone()
            hidden[:, 1:position] += self._delta
            return hidden

        return steer

    def given_up(self, runner: str, steered_tokens: int) -> list[int]:
        """Output of a sequence that lost its steering after the given positions.

        In slots the earlier keys and values stay; the plain runner restarts without steering.
        """
        until = steered_tokens + 1 if steered_tokens else 0
        if runner == "slots":
            return self.until(until)
        steered_part = self.until(10**6)[: max(until - len(PROMPT) + 1, 0)]
        return steered_part + self.until(0, (*PROMPT, *steered_part), NEW - len(steered_part))


def test_oracle_distinguishes_steered_output(faulty: Faulty, oracle: Oracle) -> None:
    """Undisturbed output matches the oracle, and every loss of steering changes it."""
    both = faulty.ask(steered(), base())
    assert tokens_of(both[0]) == oracle.until(10**6)
    assert tokens_of(both[1]) == oracle.until(0)
    answers = [tuple(oracle.until(position)) for position in (0, *range(len(PROMPT), len(PROMPT) + NEW - 2, 2))]
    assert len(set(answers)) > len(answers) // 2


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("point", ["prefill", "decode"])
def test_repeated_out_of_memory(faulty: Faulty, oracle: Oracle, point: FaultPoint, rounds: int) -> None:
    """Other requests are unaffected; a steered one continues unsteered, with a receipt; later ones succeed."""
    for number in range(8):
        out_of_memory_once(faulty, oracle, point, number)
    before = faulty.resident_bytes
    degraded = sum(out_of_memory_once(faulty, oracle, point, number) for number in range(rounds))
    assert degraded > rounds / 5, "in many rounds it happened beside a steered answer, on its way"
    assert abs(faulty.resident_bytes - before) / before < 0.01


def out_of_memory_once(faulty: Faulty, oracle: Oracle, point: FaultPoint, number: int) -> bool:
    """→ True if a steered request lost its steering."""
    after = number % 2 if point == "prefill" else number % 6
    faulty.inject(point, "oom", after=after)
    pair = (steered(), base()) if number % 3 else (base(), steered())
    answers = dict(zip((one.id for one in pair), faulty.ask(*pair), strict=True))
    assert tokens_of(answers["base"]) == oracle.until(0)
    assert end_of(answers["base"]).receipt is None
    assert faulty.client.degraded_reason == SAES_DISABLED
    check_off(faulty, oracle)
    faulty.attach()
    assert tokens_of(faulty.ask(steered())[0]) == oracle.until(10**6)
    return lost_its_steering(faulty, oracle, answers["steered"])


def lost_its_steering(faulty: Faulty, oracle: Oracle, answer: Answer) -> bool:
    if isinstance(answer, MillmError):  # it came when the SAE was off already
        assert isinstance(answer, SaeDetached)
        return False
    receipt = end_of(answer).receipt
    assert receipt is not None
    if receipt.degraded is None:  # it had ended before
        assert tokens_of(answer) == oracle.until(10**6)
        return False
    assert receipt.degraded == SAES_DISABLED
    assert 0 <= receipt.tokens_steered < len(PROMPT) + NEW
    assert (0.01 < receipt.delta_norm_ratio < 1) if receipt.tokens_steered else receipt.delta_norm_ratio == 0
    assert tokens_of(answer) == oracle.given_up(runner_of(faulty), receipt.tokens_steered)
    return True


def runner_of(faulty: Faulty) -> str:
    command = faulty.client.snapshot.model
    assert command is not None
    return command.runner


def check_off(faulty: Faulty, oracle: Oracle) -> None:
    """The SAE stays off: requests that name it fail, followers continue with a receipt."""
    watching = base("watching", watch=(Watch(sae="tiny", features=(3,)),))
    faulty.client.set_active_steering(steered().steering)
    answers = faulty.ask(base(), steered(), watching, base("follows", follows_active=True))
    faulty.client.set_active_steering(None)
    assert tokens_of(answers[0]) == oracle.until(0)
    assert isinstance(answers[1], SaeDetached)
    assert isinstance(answers[2], SaeDetached)
    assert tokens_of(answers[3]) == oracle.until(0)
    receipt = end_of(answers[3]).receipt
    assert receipt is not None
    assert (receipt.degraded, receipt.tokens_steered, receipt.delta_norm_ratio) == (SAES_DISABLED, 0, 0.0)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_repeated_out_of_memory_while_attaching(faulty: Faulty, oracle: Oracle, tmp_path: Path, rounds: int) -> None:
    """The attach fails, the attached SAE stays, and a later attach succeeds."""
    second = write_sae(tmp_path / "second", seed=9, layer=2)

    async def attach_beside_answers() -> list[object]:
        attaching = faulty.client.attach(faulty.attaching("second", second))
        answers = (collect(faulty.client.generate(sent)) for sent in (steered(), base()))
        return await asyncio.gather(*answers, attaching, return_exceptions=True)

    before = 0
    for number in range(rounds + 10):
        faulty.inject("attach", "oom")
        pushed, plain, refused = faulty.loop.run(attach_beside_answers())
        assert isinstance(refused, InsufficientMemory)
        assert tokens_of(pushed) == oracle.until(10**6)  # type: ignore[arg-type]
        assert tokens_of(plain) == oracle.until(0)  # type: ignore[arg-type]
        before = faulty.resident_bytes if number == 9 else before
    assert abs(faulty.resident_bytes - before) / before < 0.01
    faulty.attach("second", second)
    with pytest.raises(SaeMismatch, match="already attached"):
        faulty.attach("second", second)
    assert tokens_of(faulty.ask(steered())[0]) == oracle.until(10**6)
    faulty.inject("decode", "oom")
    faulty.ask(steered())
    faulty.attach()


def test_out_of_memory_while_loading_preserves_the_model(faulty: Faulty, oracle: Oracle, tiny_model: Path) -> None:
    for number in range(3):
        faulty.inject("load", "oom")
        with pytest.raises(InsufficientMemory):
            faulty.loop.run(faulty.client.load(LoadModel(id=f"load-{number}", path=str(tiny_model))))
        answers = faulty.ask(steered(), base())
        assert [tokens_of(answer) for answer in answers] == [oracle.until(10**6), oracle.until(0)]


def test_out_of_memory_fails_a_single_unsteered_request(faulty: Faulty, oracle: Oracle) -> None:
    """The SAE is turned off first; then the request fails; the next one succeeds."""
    faulty.inject("decode", "oom", after=2, times=2)
    (answer,) = faulty.ask(base())
    assert isinstance(answer, InsufficientMemory)
    assert faulty.client.in_flight == 0
    assert tokens_of(faulty.ask(base())[0]) == oracle.until(0)
    faulty.attach()


@pytest.mark.parametrize("point", ["prefill", "decode"])
def test_error_fails_only_the_sequences_of_its_pass(faulty: Faulty, oracle: Oracle, point: FaultPoint) -> None:
    """A prompt fails alone; rows that decode together fail together; the next request succeeds."""
    for number in range(10):
        faulty.inject(point, "error", after=number % 3)
        answers = faulty.ask(steered(), base("one"), base("two"))
        failed = [answer for answer in answers if isinstance(answer, MillmError)]
        assert failed
        assert {type(error) for error in failed} == {EngineFailed}
        assert "log" in failed[0].message
        if point == "prefill" or runner_of(faulty) == "plain":
            assert len(failed) == 1
        for answer, expected in zip(answers, (oracle.until(10**6), oracle.until(0), oracle.until(0)), strict=True):
            assert isinstance(answer, MillmError) or tokens_of(answer) == expected
        assert [tokens_of(answer) for answer in faulty.ask(steered(), base())] == [oracle.until(10**6), oracle.until(0)]
    assert faulty.client.in_flight == 0


def test_faults_are_rejected_outside_tests(engine: Engine, reference: LlamaForCausalLM) -> None:
    """The engine continues."""
    for point in get_args(FaultPoint):
        with pytest.raises(InvalidRequest, match="MILLM_TESTING_FAULTS"):
            engine.loop.run(engine.client.inject(InjectFault(id=f"fault-{point}", point=point, kind="error")))
    assert len(engine.tokens(base())) == NEW


# ------------------------------------------------------------------------------------------ deadlines and hangs


def test_deadline_ends_running_and_queued_requests(faulty: Faulty, oracle: Oracle, tiny_model: Path) -> None:
    """The time in the queue counts. Other requests continue, and the row is free."""
    single = LoadModel(id="single", path=str(tiny_model), runner=runner_of(faulty), slots=1)
    many = LoadModel(id="many", path=str(tiny_model), runner=runner_of(faulty))
    faulty.loop.run(faulty.client.load(single))
    hurried = [
        request("runs", prompt=OTHER, max_tokens=200, deadline_seconds=0.02),
        request("waits", max_tokens=200, deadline_seconds=0.02),
        base("patient", deadline_seconds=60.0),
    ]
    runs, waits, patient = faulty.ask(*hurried)
    for answer in (runs, waits):
        assert isinstance(answer, Timeout)
        assert "0.02 s" in answer.message
    assert tokens_of(patient) == oracle.until(0)
    assert tokens_of(faulty.ask(base())[0]) == oracle.until(0)
    faulty.loop.run(faulty.client.load(many))
    faulty.attach()


def test_hanging_step_restarts_the_engine(
    loop: Loop, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setenv("MILLM_TESTING_FAULTS", "1")

    async def scenario() -> None:
        client = EngineClient(max_queue=8, step_seconds=1.0)
        await client.start()
        await client.load(LoadModel(id="load", path=str(tiny_model)))
        await client.inject(InjectFault(id="fault", point="decode", kind="hang", after=3))
        began = time.monotonic()
        both = (collect(client.generate(base(name))) for name in ("one", "two"))
        failed = await asyncio.gather(*both, return_exceptions=True)
        assert 1.0 <= time.monotonic() - began < 3.0
        assert [type(error) for error in failed] == [EngineCrashed, EngineCrashed]
        await until_ready(client)
        assert tokens_of(await collect(client.generate(base()))) == oracle.until(0)
        await client.close()

    loop.run(scenario())
