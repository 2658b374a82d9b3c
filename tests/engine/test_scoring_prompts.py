"""Prompt logprobs match plain transformers for any chunks and beside other requests."""

import pytest
import torch
from transformers import LlamaForCausalLM

from millm.engine.messages import Finished, Generate, SamplingParams, Token, TokenScore
from millm.sae.steering import FeatureSetting, SaeSteering, Steering, coefficients
from tests.engine.conftest import Engine
from tests.engine.engine_harness import EngineHarness

PROMPT = (1, 80, 81, 82, 2, 90, 91, 33, 120, 45, 7, 300, 12)
PUSH = Steering(by_sae=(SaeSteering("tiny", (coefficients(FeatureSetting(index=3, strength=6.0)),)),))


def scored(name: str, alternatives: int = 0, **more: object) -> Generate:
    fields = {"prompt": PROMPT, "max_tokens": 0, "prompt_logprobs": alternatives, **more}
    return Generate(id=name, sampling=SamplingParams(temperature=0), **fields)  # type: ignore[arg-type]


def by_hand(model: LlamaForCausalLM, prompt: tuple[int, ...], alternatives: int) -> list[TokenScore]:
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([prompt])).logits[0], dim=-1)
    found = []
    for position, token in enumerate(prompt[1:]):
        top = logprobs[position].topk(alternatives)
        pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        found.append(TokenScore(float(logprobs[position, token]), pairs))
    return found


def assert_same(found: list[TokenScore], expected: list[TokenScore]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
        assert [value for _, value in one.top] == pytest.approx([value for _, value in other.top], abs=1e-4)


@pytest.mark.parametrize("harness", ["alone", "batched"])
@pytest.mark.parametrize("alternatives", [0, 1, 5])
def test_scores_match_the_plain_model(
    harness: str, alternatives: int, request: pytest.FixtureRequest, reference: LlamaForCausalLM
) -> None:
    engine: EngineHarness = request.getfixturevalue(harness)
    answer = engine.answer(scored(f"scored-{harness}-{alternatives}", alternatives))
    assert isinstance(answer.end, Finished)
    assert answer.end.reason == "length"
    assert answer.tokens == []
    assert_same(answer.scores, by_hand(reference, PROMPT, alternatives))


def test_reused_prefix_is_scored(batched: EngineHarness, reference: LlamaForCausalLM) -> None:
    """A cached prefix is recomputed, because scores need its logits."""
    batched.answer(Generate(id="warming", prompt=PROMPT, max_tokens=3))
    answer = batched.answer(scored("after-warming", max_tokens=4))
    assert isinstance(answer.end, Finished)
    assert answer.end.cached_tokens == 0
    assert len(answer.tokens) == 4
    assert_same(answer.scores, by_hand(reference, PROMPT, 0))


def test_batched_scores_match_single_runs(batched: EngineHarness, reference: LlamaForCausalLM) -> None:
    requests = [scored(f"beside-{n}", 2, prompt=PROMPT[n:]) for n in range(6)]
    batched.send(*requests, Generate(id="neighbour", prompt=(5, 6), max_tokens=20))
    answers = batched.run_until({request.id for request in requests} | {"neighbour"})
    for n, request in enumerate(requests):
        assert_same(answers[request.id].scores, by_hand(reference, PROMPT[n:], 2))


@pytest.mark.parametrize("steering", [None, PUSH])
def test_prompt_scores_match_reported_logprobs(
    batched: EngineHarness, engine: Engine, steering: Steering | None
) -> None:
    """Logprobs of generation match prompt scores of the generated text."""
    generated = Generate(
        id=f"first-{steering is None}", prompt=PROMPT, max_tokens=8, steering=steering,
        sampling=SamplingParams(temperature=0, logprobs=0),
    )  # fmt: skip
    tokens = [event for event in engine.generate(generated)[0] if isinstance(event, Token)]
    text = (*PROMPT, *(token.token for token in tokens))
    answer = batched.answer(scored(f"again-{steering is None}", prompt=text, steering=steering))
    reported = [token.logprob for token in tokens]
    assert [score.logprob for score in answer.scores[-8:]] == pytest.approx(reported, abs=1e-4)
    plain = batched.answer(scored(f"plain-{steering is None}", prompt=text))
    assert (plain.scores == answer.scores) is (steering is None)


def test_single_token_prompt_has_no_scores(alone: EngineHarness) -> None:
    answer = alone.answer(scored("single", prompt=(5,)))
    assert isinstance(answer.end, Finished)
    assert answer.scores == []
