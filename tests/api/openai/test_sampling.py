"""Sampling and stopping: seeds, several choices, stop strings, biases."""

from typing import Any

import openai
import pytest


def texts(answer: Any) -> list[str]:
    return [choice.message.content for choice in answer.choices]


def streamed(client: openai.OpenAI, body: dict[str, Any]) -> tuple[str, list[str], str | None]:
    """A streamed chat: text, chunks and finish reason."""
    pieces, reason = [], None
    for chunk in client.chat.completions.create(**body, stream=True):
        pieces.append(chunk.choices[0].delta.content or "")
        reason = chunk.choices[0].finish_reason or reason
    return "".join(pieces), pieces, reason


def test_same_seed_repeats_and_other_seed_differs(client, chat) -> None:
    warm = {**chat, "temperature": 1.5}
    once, again, other = (client.chat.completions.create(**warm, seed=seed) for seed in (7, 7, 8))
    assert texts(once) == texts(again)
    assert texts(once) != texts(other)
    assert once.system_fingerprint == again.system_fingerprint
    unseeded = {texts(client.chat.completions.create(**warm))[0] for _ in range(2)}
    assert len(unseeded) == 2


def test_choice_i_uses_seed_plus_i(client, chat) -> None:
    warm = {**chat, "temperature": 1.5}
    three = client.chat.completions.create(**warm, seed=5, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert texts(three) == [texts(client.chat.completions.create(**warm, seed=5 + i))[0] for i in range(3)]
    assert three.usage.completion_tokens == 3 * 24


def test_extreme_seeds_are_accepted(client, chat) -> None:
    for seed in (-(2**63), 2**63 - 1, 0):
        assert len(texts(client.chat.completions.create(**chat, seed=seed, n=2))) == 2


def test_stop_string_is_never_returned_at_any_position(client, chat) -> None:
    """Uses every three characters of the answer as the stop string, across all token borders."""
    chat["max_tokens"] = 12
    full_response = texts(client.chat.completions.create(**chat))[0]
    places = [
        position for position in range(len(full_response) - 2) if "\ufffd" not in full_response[position : position + 3]
    ]
    assert len(places) > 5
    for position in places:
        stop = full_response[position : position + 3]
        before = full_response[: full_response.index(stop)]
        answer = client.chat.completions.create(**chat, stop=stop)
        assert (texts(answer)[0], answer.choices[0].finish_reason) == (before, "stop")
        text, _, reason = streamed(client, {**chat, "stop": [stop, "never found"]})
        assert (text, reason) == (before, "stop")


def test_empty_stop_string_is_ignored(client, chat) -> None:
    plain = texts(client.chat.completions.create(**chat))
    for stop in ("", [], [""], None):
        assert texts(client.chat.completions.create(**chat, stop=stop)) == plain


def test_stopped_answer_counts_its_tokens_and_has_a_receipt(client, chat) -> None:
    push = {**chat, "extra_body": {"profile": "push"}}
    full_response = client.chat.completions.create(**push)
    text = texts(full_response)[0]
    stop = next(text[i : i + 2] for i in range(4, len(text)) if "\ufffd" not in text[i : i + 2])
    stopped = client.chat.completions.create(**push, stop=stop)
    assert 0 < stopped.usage.completion_tokens < full_response.usage.completion_tokens
    receipt, full = stopped.model_extra["millm"], full_response.model_extra["millm"]
    assert receipt["steering"] == full["steering"]
    assert 0 < receipt["tokens_steered"] < full["tokens_steered"]


@pytest.mark.parametrize("token", [40, 41])
def test_logit_bias_forces_and_forbids_tokens(client, chat, token) -> None:
    forced = client.completions.create(
        model=chat["model"], prompt="a", max_tokens=4, temperature=0, logprobs=1, logit_bias={str(token): 100}
    )
    assert len(set(forced.choices[0].logprobs.tokens)) == 1
    plain = client.completions.create(model=chat["model"], prompt="a", max_tokens=4, temperature=0, logprobs=1)
    assert forced.choices[0].logprobs.tokens != plain.choices[0].logprobs.tokens


def test_top_k_one_is_greedy_at_any_temperature(client, chat) -> None:
    greedy = texts(client.chat.completions.create(**chat))
    warm = {**chat, "temperature": 2}
    assert texts(client.chat.completions.create(**warm, extra_body={"top_k": 1})) == greedy
    assert texts(client.chat.completions.create(**warm, top_p=0)) == greedy
    assert texts(client.chat.completions.create(**warm, extra_body={"min_p": 1.0})) == greedy
