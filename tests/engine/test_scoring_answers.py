"""Answer scores match plain transformers with a plain hook, and the logprobs of generation."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM

from millm.engine.messages import (
    AnswerScored,
    Cancel,
    CommandFailed,
    Finished,
    Generate,
    InjectFault,
    SamplingParams,
    ScoreAnswer,
    Token,
)
from millm.engine.scoring import POSITIONS_PER_CHUNK
from millm.errors import ContextLengthExceeded, InvalidRequest, InvalidSteering, ModelNotLoaded, Timeout
from millm.sae.steering import FeatureSetting, Positions, SaeSteering, Skip, Steering, coefficients
from tests.engine.conftest import Engine, collect
from tests.engine.engine_harness import EngineHarness, load
from tests.engine.test_core_generation import add, decoder, hooked, steer  # noqa: F401  a fixture among them
from tests.fixtures.tiny import CONTEXT

PROMPT = (1, 80, 2, 90, 33, 120, 45)
ANSWER = (200, 2, 17, 300, 41)
LONG = tuple(random.Random(4).choices(range(3, 300), k=POSITIONS_PER_CHUNK + 9))
PUSH = steer(add(3, 8.0), add(9, -4.0))
HOLD = steer(FeatureSetting(index=3, strength=9.0, mode="clamp"))


def logprobs(model: LlamaForCausalLM, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
    """Logits of each answer token  # [N, V]"""
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.double(), dim=-1)


def nll(distribution: Tensor, answer: tuple[int, ...]) -> float:
    return -sum(float(distribution[place, token]) for place, token in enumerate(answer)) / len(answer)


def divergence(steered: Tensor, base: Tensor) -> float:
    return float(torch.nn.functional.kl_div(base, steered, log_target=True, reduction="batchmean"))


def is_steered(positions: Positions, skip: Skip, place: int, token: int) -> bool:
    if (skip != "none" and place == 0) or (skip == "special" and token in (0, 1, 2)):
        return False
    return positions == "all" or (place < len(PROMPT) if positions == "prompt" else place >= len(PROMPT) - 1)


@pytest.mark.parametrize("answer", [ANSWER, ANSWER[:1], LONG], ids=["short", "one", "long"])
def test_base_model_nll(engine: Engine, reference: LlamaForCausalLM, answer: tuple[int, ...]) -> None:
    (found,) = engine.loop.run(engine.client.score_answers(ScoreAnswer(id="base", prompt=PROMPT, answer=answer)))
    assert found.tokens == len(answer)
    assert found.nll == pytest.approx(nll(logprobs(reference, PROMPT, answer), answer), abs=1e-5)
    assert found.steered_nll is None
    assert found.kl is None


@given(
    positions=st.sampled_from(["all", "prompt", "generated"]),
    skip=st.sampled_from(["bos", "special", "none"]),
    answer=st.sampled_from([ANSWER, ANSWER[:1], LONG]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scored_steering_matches_generation(
    engine: Engine,
    reference: LlamaForCausalLM,
    decoder: Tensor,  # noqa: F811
    positions: Positions,
    skip: Skip,
    answer: tuple[int, ...],
) -> None:
    delta = 8.0 * decoder[3] - 4.0 * decoder[9]
    keep = torch.tensor([is_steered(positions, skip, *one) for one in enumerate(PROMPT + answer)]).float()[:, None]
    steering = Steering(by_sae=PUSH.by_sae, positions=positions, skip=skip)
    command = ScoreAnswer(id="steered", prompt=PROMPT, answer=answer, steering=steering)
    (found,) = engine.loop.run(engine.client.score_answers(command))
    base = logprobs(reference, PROMPT, answer)
    with hooked(reference, lambda x: x + delta * keep):
        steered = logprobs(reference, PROMPT, answer)
    assert found.nll == pytest.approx(nll(base, answer), abs=1e-5)
    assert found.steered_nll == pytest.approx(nll(steered, answer), abs=1e-5)
    assert found.kl == pytest.approx(divergence(steered, base), abs=1e-5)
    assert found.kl is not None
    assert found.kl > 1e-3 or positions == "prompt"


@pytest.mark.parametrize("steering", [PUSH, HOLD], ids=["add", "clamp"])
def test_nll_matches_the_logprobs_of_generation(engine: Engine, steering: Steering) -> None:
    """Token by token with a cache, and in one pass without."""
    ask = Generate(
        id="written",
        prompt=PROMPT,
        max_tokens=20,
        sampling=SamplingParams(temperature=0, logprobs=0),
        steering=steering,
    )
    written = [event for event in engine.generate(ask)[0] if isinstance(event, Token)]
    answer = tuple(event.token for event in written)
    (found,) = engine.loop.run(
        engine.client.score_answers(ScoreAnswer(id="judged", prompt=PROMPT, answer=answer, steering=steering))
    )
    assert found.steered_nll == pytest.approx(-sum(event.logprob or 0.0 for event in written) / len(written), abs=1e-4)


def test_results_are_in_order(engine: Engine) -> None:
    texts = [
        ScoreAnswer(id=f"many-{n}", prompt=PROMPT, answer=(50 + n,), steering=PUSH if n % 2 else None)
        for n in range(20)
    ]
    found = engine.loop.run(engine.client.score_answers(*texts))
    assert [event.id for event in found] == [text.id for text in texts]
    assert len({event.nll for event in found}) == len(texts)


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"prompt": (), "answer": ANSWER}, InvalidRequest),
        ({"prompt": PROMPT, "answer": ()}, InvalidRequest),
        ({"prompt": (5,) * 200, "answer": (6,) * (CONTEXT - 199)}, ContextLengthExceeded),
        ({"prompt": PROMPT, "answer": ANSWER, "model": "another"}, ModelNotLoaded),
        ({"prompt": PROMPT, "answer": ANSWER, "deadline_seconds": 0.0}, Timeout),
        ({"prompt": PROMPT, "answer": ANSWER, "steering": steer(add(96, 1.0))}, InvalidSteering),
    ],
)  # fmt: skip
def test_invalid_answers_are_rejected(engine: Engine, more: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        engine.loop.run(engine.client.score_answers(ScoreAnswer(id="refused", **more)))  # type: ignore[arg-type]


def test_longest_text_fits(engine: Engine) -> None:
    command = ScoreAnswer(id="longest", prompt=(5,) * 200, answer=(6,) * (CONTEXT - 200))
    assert engine.loop.run(engine.client.score_answers(command))[0].tokens == CONTEXT - 200


# ------------------------------------------------------------------------------------------- beside others, and failing


@pytest.fixture(scope="module")
def harness(tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> EngineHarness:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLM_TESTING_FAULTS", "1")
        return load(EngineHarness(), tiny_model, tiny_sae, canonical_root, slots=3)


def outcome(harness: EngineHarness, *commands: ScoreAnswer | Cancel) -> AnswerScored | CommandFailed | Finished:
    harness.send(*commands)
    while not (found := [event for event in harness.events if getattr(event, "id", "") == commands[0].id]):
        harness.engine.run_once()
    (hook,) = harness.engine.executor.attached_saes.active_hooks()
    assert hook.is_unused, "its row was not given back"
    (event,) = found
    assert isinstance(event, AnswerScored | CommandFailed | Finished)
    return event


def test_scoring_does_not_affect_steered_sequences(harness: EngineHarness) -> None:
    ask = Generate(id="stream", prompt=PROMPT, max_tokens=30, sampling=SamplingParams(temperature=0), steering=HOLD)
    alone = harness.answer(ask).tokens
    quiet = outcome(harness, ScoreAnswer(id="quiet", prompt=PROMPT, answer=ANSWER, steering=PUSH))
    harness.events.clear()
    harness.send(ask, ScoreAnswer(id="busy", prompt=PROMPT, answer=ANSWER, steering=PUSH))
    assert harness.run_until({"stream"})["stream"].tokens == alone
    (busy,) = (event for event in harness.events if isinstance(event, AnswerScored))
    assert isinstance(quiet, AnswerScored)
    assert (busy.nll, busy.steered_nll, busy.kl) == (quiet.nll, quiet.steered_nll, quiet.kl)


@pytest.mark.parametrize("after", [0, 1], ids=["base", "steered"])
def test_out_of_memory_fails_only_the_answer(harness: EngineHarness, after: int) -> None:
    harness.send(InjectFault(id=f"fault-{after}", point="prefill", kind="oom", after=after))
    failed = outcome(harness, ScoreAnswer(id=f"oom-{after}", prompt=PROMPT, answer=ANSWER, steering=PUSH))
    assert isinstance(failed, CommandFailed)
    assert failed.code == "insufficient_memory"
    assert isinstance(
        outcome(harness, ScoreAnswer(id=f"next-{after}", prompt=PROMPT, answer=ANSWER, steering=PUSH)), AnswerScored
    )


def test_queued_text_can_be_cancelled(harness: EngineHarness) -> None:
    found = outcome(harness, ScoreAnswer(id="gone", prompt=PROMPT, answer=ANSWER, steering=PUSH), Cancel(id="gone"))
    assert isinstance(found, Finished)
    assert found.reason == "cancelled"


def test_leaving_cancels_the_remaining_texts(engine: Engine) -> None:
    async def left() -> int:
        good = [ScoreAnswer(id=f"left-{n}", prompt=PROMPT, answer=LONG) for n in range(30)]
        with pytest.raises(InvalidRequest):
            await engine.client.score_answers(ScoreAnswer(id="bad", prompt=PROMPT, answer=()), *good)
        await collect(engine.client.generate(Generate(id="after", prompt=PROMPT, max_tokens=1)))
        return engine.client.in_flight

    assert engine.loop.run(left()) == 0


def test_steering_of_an_unknown_sae_is_rejected(harness: EngineHarness) -> None:
    other = Steering(by_sae=(SaeSteering("other", (coefficients(add(3, 1.0)),)),))
    failed = outcome(harness, ScoreAnswer(id="other", prompt=PROMPT, answer=ANSWER, steering=other))
    assert isinstance(failed, CommandFailed)
    assert failed.code == "invalid_steering"
