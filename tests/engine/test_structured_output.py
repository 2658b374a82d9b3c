"""Constrained output matches its grammar, alone and in a batch."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from tokenizers import Tokenizer

from millm.engine.messages import CommandFailed, Finished, Generate, SamplingParams
from millm.sae.steering import FeatureSetting, SaeSteering, Steering, coefficients
from tests.engine.engine_harness import Answer, EngineHarness

PROMPT = (1, 80, 81, 82, 2, 90)
STOP = (2,)
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["sea", "sky", "<|im_end|>"]},
        "number": {"type": "integer", "minimum": 0, "maximum": 99},
        "sure": {"type": "boolean"},
    },
    "required": ["kind", "number", "sure"],
    "additionalProperties": False,
}


def grammar(schema: object) -> str:
    found: str = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_flexible": False})
    return found


OBJECT = grammar(SCHEMA)


@pytest.fixture(scope="module")
def tokenizer(tiny_model) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model / "tokenizer.json"))


def constrained(name: str, seed: int = 0, text: str = OBJECT, **more: object) -> Generate:
    fields = {"prompt": PROMPT, "max_tokens": 120, "sampling": SamplingParams(seed=seed), **more}
    return Generate(id=name, stop_ids=STOP, grammar=text, **fields)  # type: ignore[arg-type]


def value(tokenizer: Tokenizer, answer: Answer) -> dict[str, object]:
    assert isinstance(answer.end, Finished)
    assert answer.end.reason == "stop"
    assert not set(answer.tokens) & {0, 1, 2}, "a special token is no text"
    found: dict[str, object] = json.loads(tokenizer.decode(answer.tokens))
    return found


def check(found: dict[str, object]) -> None:
    assert list(found) == ["kind", "number", "sure"]
    assert found["kind"] in ("sea", "sky", "<|im_end|>")
    assert found["number"] in range(100)
    assert found["sure"] in (True, False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), temperature=st.sampled_from([0.0, 0.7, 2.0]), steered=st.booleans())
def test_output_matches_the_grammar(
    batched: EngineHarness, tokenizer: Tokenizer, seed: int, temperature: float, steered: bool
) -> None:
    """Also from a strongly steered model with random weights."""
    sampling = SamplingParams(seed=seed, temperature=temperature, repetition_penalty=1.3)
    push = steer(strength=40.0) if steered else None
    check(value(tokenizer, batched.answer(constrained(f"obeys-{next_id()}", sampling=sampling, steering=push))))


def test_batched_constrained_output_matches_a_single_run(
    alone: EngineHarness, batched: EngineHarness, tokenizer: Tokenizer
) -> None:
    requests = [constrained(f"together-{seed}", seed) for seed in range(5)]
    free = Generate(id="together-free", prompt=PROMPT, max_tokens=30, sampling=SamplingParams(seed=9))
    batched.send(*requests, free)
    together = batched.run_until({"together-free", *(request.id for request in requests)})
    for request in (*requests, free):
        assert together[request.id].tokens == alone.answer(request).tokens
    texts = {json.dumps(value(tokenizer, together[request.id])) for request in requests}
    assert len(texts) > 1


def test_mask_matches_the_grammar(alone: EngineHarness, tokenizer: Tokenizer) -> None:
    """A grammar of one text has one output."""
    answer = alone.answer(constrained("only", text=grammar({"const": {"a": [1, None, "é"]}})))
    assert json.loads(tokenizer.decode(answer.tokens)) == {"a": [1, None, "é"]}


def test_max_tokens_truncates_constrained_output(alone: EngineHarness) -> None:
    answer = alone.answer(constrained("cut", max_tokens=3))
    assert isinstance(answer.end, Finished)
    assert (answer.end.reason, len(answer.tokens)) == ("length", 3)


def test_invalid_grammar_fails_only_its_request(batched: EngineHarness) -> None:
    batched.send(constrained("bad", text='{"grammars":[]}'), constrained("good"))
    answers = batched.run_until({"bad", "good"})
    assert isinstance(answers["bad"].end, CommandFailed)
    assert answers["bad"].end.code == "invalid_value"
    assert isinstance(answers["good"].end, Finished)


def test_skip_constrained_leaves_constrained_tokens_unsteered(batched: EngineHarness, tokenizer: Tokenizer) -> None:
    """The tokens are those of the prompt steered alone."""
    everywhere = batched.answer(constrained("everywhere", steering=steer(strength=5.0)))
    left_alone = batched.answer(constrained("left-alone", steering=steer(strength=5.0, skip_constrained=True)))
    assert isinstance(everywhere.end, Finished)
    assert isinstance(left_alone.end, Finished)
    assert everywhere.end.receipt
    assert left_alone.end.receipt
    assert left_alone.end.receipt.tokens_steered == len(PROMPT) - 2  # neither the first, nor the one before the answer
    assert everywhere.end.receipt.tokens_steered == len(PROMPT) - 1 + len(everywhere.tokens) - 1
    free = Generate(id="free", prompt=PROMPT, max_tokens=5, steering=steer(strength=5.0, skip_constrained=True))
    end = batched.answer(free).end
    assert isinstance(end, Finished)
    assert end.receipt
    assert end.receipt.tokens_steered == len(PROMPT) - 1 + 4  # no grammar, nothing to leave alone


def steer(strength: float, *, skip_constrained: bool = False) -> Steering:
    by_sae = (SaeSteering("tiny", (coefficients(FeatureSetting(index=3, strength=strength)),)),)
    return Steering(by_sae=by_sae, skip_constrained=skip_constrained)


_ids = iter(range(10**9))


def next_id() -> int:
    return next(_ids)


def test_library_panic_fails_only_its_request(batched: EngineHarness) -> None:
    """llguidance panics when its message would split a character; the matcher reports it as an invalid grammar."""
    bad = '{"grammars":[{"json_schema":{"required":"' + "🙂" * 50 + '"}}]}'
    batched.send(constrained("panics", text=bad), constrained("goes-on"))
    answers = batched.run_until({"panics", "goes-on"})
    assert isinstance(answers["panics"].end, CommandFailed)
    assert answers["panics"].end.code == "invalid_value"
    assert isinstance(answers["goes-on"].end, Finished)
