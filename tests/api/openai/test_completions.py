"""Completions with `echo`, `best_of`, stop tokens and penalties."""

import json
import math
from pathlib import Path

import openai
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from tests.fixtures.tiny import CONTEXT

PROMPT = "The sea is wide and the sky is é"


@pytest.fixture(scope="module")
def bare(tiny_model: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def ids(tiny_model: Path) -> list[int]:
    found: list[int] = AutoTokenizer.from_pretrained(tiny_model)(PROMPT)["input_ids"]
    return found


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("new", [0, 1, 5])
def test_prompt_logprobs_equal_transformers(client, text, bare, tokenizer, ids, as_ids, new) -> None:
    """The request that lm-eval sends, for text and for token ids."""
    prompt = ids if as_ids else PROMPT
    answer = client.completions.create(**{**text, "prompt": prompt, "max_tokens": new}, echo=True, logprobs=2)
    (choice,) = answer.choices
    result = choice.logprobs
    with torch.inference_mode():
        expected = torch.log_softmax(bare(torch.tensor([ids])).logits[0], dim=-1)
    assert result.token_logprobs[0] is None
    assert result.top_logprobs[0] is None
    assert len(result.tokens) == len(result.token_logprobs) == len(result.text_offset) == len(ids) + new
    for position, token in enumerate(ids[1:]):
        assert result.token_logprobs[position + 1] == pytest.approx(float(expected[position, token]), abs=1e-3)
        best = tokenizer.decode([int(expected[position].argmax())])
        top = result.top_logprobs[position + 1]
        assert "\ufffd" in best or max(top, key=top.get) == best
        assert result.tokens[position + 1] in top
    assert choice.text.startswith(PROMPT)
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.usage.completion_tokens == new
    for offset, token in zip(result.text_offset, result.tokens, strict=True):
        assert "\ufffd" in token or choice.text.startswith(token, offset)


def test_echo_without_logprobs_returns_prompt_and_answer(client, text) -> None:
    plain = client.completions.create(**text).choices[0].text
    assert client.completions.create(**text, echo=True).choices[0].text == text["prompt"] + plain
    chunks = client.completions.create(**text, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == text["prompt"] + plain
    control = "<|im_start|>user\nHi<|im_end|>"
    (choice,) = client.completions.create(**{**text, "prompt": control}, echo=True, logprobs=0).choices
    assert choice.text.startswith(control)
    for offset, token in zip(choice.logprobs.text_offset, choice.logprobs.tokens, strict=True):
        assert "\ufffd" in token or choice.text.startswith(token, offset)


def test_streamed_prompt_logprobs_equal_full_response(client, text) -> None:
    body = {**text, "echo": True, "logprobs": 1, "max_tokens": 4}
    (full_response,) = client.completions.create(**body).choices
    parts = [chunk.choices[0] for chunk in client.completions.create(**body, stream=True)]
    assert "".join(part.text for part in parts) == full_response.text
    result = [part.logprobs for part in parts if part.logprobs]
    assert [token for part in result for token in part.tokens] == full_response.logprobs.tokens
    assert [offset for part in result for offset in part.text_offset] == full_response.logprobs.text_offset
    found = [logprob for part in result for logprob in part.token_logprobs]
    assert found == [None, *(pytest.approx(logprob, abs=1e-4) for logprob in full_response.logprobs.token_logprobs[1:])]


def test_prompt_may_fill_context_with_max_tokens_zero(client, text) -> None:
    full = {**text, "prompt": [5] * CONTEXT, "echo": True, "logprobs": 1}
    assert len(client.completions.create(**{**full, "max_tokens": 0}).choices[0].logprobs.tokens) == CONTEXT
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.completions.create(**{**full, "max_tokens": 1})


def test_max_tokens_zero_returns_empty_answer(client, text) -> None:
    (choice,) = client.completions.create(**{**text, "max_tokens": 0}).choices
    assert (choice.text, choice.finish_reason) == ("", "length")


def test_best_of_returns_the_likeliest_samples(client, text) -> None:
    """Compares with the best of the same samples by hand."""
    body = {**text, "prompt": ["The sea is", "One two"], "temperature": 1.5, "seed": 7, "max_tokens": 6, "logprobs": 0}
    every = client.completions.create(**body, n=4).choices
    best = client.completions.create(**body, n=2, best_of=4)

    def mean(choice) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    for prompt in range(2):
        ranked = sorted(every[prompt * 4 : prompt * 4 + 4], key=mean, reverse=True)
        assert [choice.text for choice in ranked[:2]] == [choice.text for choice in best.choices[prompt * 2 :][:2]]
    assert [choice.index for choice in best.choices] == [0, 1, 2, 3]
    assert best.usage.completion_tokens == sum(len(choice.logprobs.tokens) for choice in every)
    silent = client.completions.create(**{**body, "logprobs": None}, n=2, best_of=4)
    assert [choice.text for choice in silent.choices] == [choice.text for choice in best.choices]
    assert silent.choices[0].logprobs is None


def test_stop_token_ids_end_the_answer(client, text, tokenizer) -> None:
    free = client.completions.create(**text, logprobs=0).choices[0].logprobs.tokens
    place, token = next((n, token) for n, token in enumerate(free) if n > 1 and "\ufffd" not in token)
    ends = {"stop_token_ids": tokenizer.encode(token)}
    cut = client.completions.create(**text, logprobs=0, extra_body=ends).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.logprobs.tokens == free[: free.index(token)]
    assert len(cut.logprobs.tokens) <= place


def test_penalties_and_min_tokens_reach_the_model(client, text) -> None:
    plain = client.completions.create(**text, logprobs=0).choices[0]
    strict = client.completions.create(**text, logprobs=0, extra_body={"repetition_penalty": 5.0}).choices[0]
    assert strict.text != plain.text
    assert len(set(strict.logprobs.tokens)) > len(set(plain.logprobs.tokens))
    long = client.completions.create(**text, extra_body={"ignore_eos": True, "min_tokens": 24})
    assert long.usage.completion_tokens == 24


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"repetition_penalty": 5e-324}, "repetition_penalty"),
        ({"repetition_penalty": math.inf}, None),
        ({"stop_token_ids": [10**6]}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids.0"),
        ({"min_tokens": 25}, "min_tokens"),
        ({"echo": "yes"}, "echo"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"suffix": "end"}, "suffix"),
    ],
)
def test_invalid_values_are_rejected_by_name(http, text, extra, param) -> None:
    answer = http.post("/completions", content=json.dumps({**text, **extra}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
