"""Full responses and streams of both endpoints agree with each other and with OpenAI's format."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from transformers import AutoTokenizer

from tests.fixtures.close import assert_close
from tests.fixtures.tiny import CONTEXT

ENDPOINTS = ["/chat/completions", "/completions"]
STEERINGS: dict[str, dict[str, Any]] = {
    "base": {},
    "push": {"profile": "push"},
    "clamped": {"steering": {"features": [{"index": 2, "strength": 3, "mode": "clamp"}]}},
}


@pytest.fixture
def bodies(chat, text) -> dict[str, dict[str, Any]]:
    return dict(zip(ENDPOINTS, (chat, text), strict=True))


def events(http: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream, with its framing checked."""
    with http.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        frames = answer.read().decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2] if not frame.startswith(":")]


def full(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_in(choice: dict[str, Any]) -> str:
    """Text of a choice or chunk of either endpoint."""
    if "text" in choice:
        return choice["text"]
    return choice["message"]["content"] if "message" in choice else choice["delta"].get("content", "")


def of_choice(chunks: Iterable[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    return [chunk["choices"][0] for chunk in chunks if chunk["choices"] and chunk["choices"][0]["index"] == index]


def logprobs_in(choices: Iterable[dict[str, Any]]) -> list[Any]:
    """Joined logprobs of all chunks of a choice."""
    parts = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    key = "content" if parts and "content" in parts[0] else "token_logprobs"
    return [entry for part in parts for entry in part[key]]


@pytest.mark.parametrize("steering", STEERINGS.values(), ids=STEERINGS)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_joined_stream_equals_full_response(http, bodies, path, steering) -> None:
    fields = {"logprobs": True, "top_logprobs": 3} if path == ENDPOINTS[0] else {"logprobs": 3}
    watch = {"activations": {"features": [3, 5], "top_k": 2, "tokens": "all"}}
    body = {**bodies[path], **steering, **fields, **watch, "n": 2, "stream_options": {"include_usage": True}}
    at_once, chunks = full(http, path, body), events(http, path, body)
    for index, choice in enumerate(at_once["choices"]):
        parts = of_choice(chunks, index)
        assert "".join(map(text_in, parts)) == text_in(choice)
        assert_close(logprobs_in(parts), logprobs_in([choice]))
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [choice["finish_reason"]]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == at_once["usage"]
    streamed = [a for chunk in chunks for a in chunk.get("millm", {}).get("activations", [])]
    assert_close(sorted(streamed, key=lambda a: a["choice"]), at_once["millm"]["activations"])
    receipts = [chunk["millm"] for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    assert len(receipts) == 2
    assert sum(receipt["tokens_steered"] for receipt in receipts) == at_once["millm"]["tokens_steered"]
    for key in ("profile", "steering", "delta_norm_ratio"):
        assert_close([receipt[key] for receipt in receipts], [at_once["millm"][key]] * 2)


def test_chat_equals_completion_of_its_rendered_template(http, chat, text, tiny_model: Path) -> None:
    template = AutoTokenizer.from_pretrained(tiny_model)
    prompt = template.apply_chat_template(chat["messages"], add_generation_prompt=True, return_dict=False)
    result = full(http, "/chat/completions", chat)
    continued = full(http, "/completions", {**text, "prompt": prompt})
    assert text_in(result["choices"][0]) == text_in(continued["choices"][0])
    assert result["usage"] == continued["usage"]
    assert result["usage"]["prompt_tokens"] == len(prompt)


def test_full_chat_response_has_all_expected_fields(http, chat) -> None:
    full(http, "/chat/completions", chat)
    answer = full(http, "/chat/completions", chat)  # the same again: its prompt is in the cache
    content = text_in(answer["choices"][0])
    assert content
    assert answer == {
        "id": answer["id"],
        "object": "chat.completion",
        "created": answer["created"],
        "model": chat["model"],
        "system_fingerprint": answer["system_fingerprint"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {
            "prompt_tokens": answer["usage"]["prompt_tokens"],
            "completion_tokens": 24,
            "total_tokens": answer["usage"]["prompt_tokens"] + 24,
            "prompt_tokens_details": {"cached_tokens": answer["usage"]["prompt_tokens"] - 1},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "millm": {"profile": None, "steering": None, "tokens_steered": 0, "delta_norm_ratio": 0.0},
    }
    assert answer["id"].startswith("chatcmpl-")


@pytest.mark.parametrize("path", ENDPOINTS)
def test_stream_chunks_share_identity_and_omit_optional_fields(http, bodies, path) -> None:
    chunks = events(http, path, {**bodies[path], "n": 2})
    for key in ("id", "created", "model", "object", "system_fingerprint"):
        assert len({chunk[key] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)


def test_chat_stream_sends_role_only_in_first_chunk(http, chat) -> None:
    for index in range(2):
        first, *rest = of_choice(events(http, "/chat/completions", {**chat, "n": 2}), index)
        assert first["delta"] == {"role": "assistant", "content": ""}
        assert all("role" not in part["delta"] for part in rest)
        assert rest[-1]["delta"] == {}


def test_stream_usage_is_null_until_last_chunk(http, text) -> None:
    *earlier, last = events(http, "/completions", {**text, "stream_options": {"include_usage": True}})
    assert all(chunk["usage"] is None for chunk in earlier)
    assert last["usage"]["completion_tokens"] == 24
    assert "millm" not in last


def test_logprobs_include_token_bytes(http, chat) -> None:
    answer = full(http, "/chat/completions", {**chat, "logprobs": True, "top_logprobs": 20})
    entries = logprobs_in(answer["choices"])
    assert len(entries) == answer["usage"]["completion_tokens"]
    assert bytes(b for entry in entries for b in entry["bytes"]).decode(errors="replace") == text_in(
        answer["choices"][0]
    )
    for entry in entries:
        likely = [top["logprob"] for top in entry["top_logprobs"]]
        assert len(likely) == 20
        assert likely == sorted(likely, reverse=True)
        assert entry["logprob"] == likely[0]  # greedy takes the likeliest
        assert sum(2.718281828**logprob for logprob in likely) <= 1.0001


def test_chat_and_completion_logprobs_agree(http, chat, text, tiny_model: Path) -> None:
    template = AutoTokenizer.from_pretrained(tiny_model)
    prompt = template.apply_chat_template(chat["messages"], add_generation_prompt=True, return_dict=False)
    new = full(http, "/chat/completions", {**chat, "logprobs": True, "top_logprobs": 2})["choices"][0]
    old = full(http, "/completions", {**text, "prompt": prompt, "logprobs": 2})["choices"][0]
    entries = new["logprobs"]["content"]
    assert old["logprobs"]["tokens"] == [entry["token"] for entry in entries]
    assert old["logprobs"]["token_logprobs"] == [entry["logprob"] for entry in entries]
    assert old["logprobs"]["top_logprobs"] == [
        {top["token"]: top["logprob"] for top in reversed(entry["top_logprobs"])} for entry in entries
    ]
    offsets = old["logprobs"]["text_offset"]
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    for offset, token in zip(offsets, old["logprobs"]["tokens"], strict=True):
        assert "\ufffd" in token or old["text"].startswith(token, offset)


def test_logprobs_without_alternatives_are_empty_lists(http, chat) -> None:
    answer = full(http, "/chat/completions", {**chat, "logprobs": True})
    assert [entry["top_logprobs"] for entry in logprobs_in(answer["choices"])] == [[]] * 24


def test_choices_are_ordered_by_prompt_then_sample(http, text) -> None:
    prompts = ["The sea is", "The sky is", "One two"]
    alone = [text_in(full(http, "/completions", {**text, "prompt": prompt})["choices"][0]) for prompt in prompts]
    together = full(http, "/completions", {**text, "prompt": prompts, "n": 2})
    assert [choice["index"] for choice in together["choices"]] == list(range(6))
    assert [text_in(choice) for choice in together["choices"]] == [each for each in alone for _ in range(2)]
    assert together["usage"]["completion_tokens"] == 6 * 24


def test_token_id_prompt_equals_text_prompt(http, text, tiny_model: Path) -> None:
    ids = AutoTokenizer.from_pretrained(tiny_model)(text["prompt"])["input_ids"]
    spelled = full(http, "/completions", text)
    assert text_in(full(http, "/completions", {**text, "prompt": ids})["choices"][0]) == text_in(spelled["choices"][0])
    several = full(http, "/completions", {**text, "prompt": [ids, ids]})
    assert [text_in(choice) for choice in several["choices"]] == [text_in(spelled["choices"][0])] * 2


@pytest.mark.parametrize("prompt", [None, ""])
def test_empty_prompt_starts_a_new_text(http, text, prompt) -> None:
    answer = full(http, "/completions", {**text, "prompt": prompt})
    assert answer["usage"]["prompt_tokens"] == 1
    assert answer["usage"]["completion_tokens"] == 24


def test_token_limits_are_clamped_and_have_defaults(http, chat, text) -> None:
    huge = full(http, "/chat/completions", {**chat, "max_tokens": 10**9})
    assert huge["usage"]["total_tokens"] <= CONTEXT
    if huge["choices"][0]["finish_reason"] == "length":
        assert huge["usage"]["total_tokens"] == CONTEXT
    unlimited = {name: value for name, value in chat.items() if name != "max_tokens"}
    assert full(http, "/chat/completions", unlimited)["usage"] == huge["usage"]
    both = full(http, "/chat/completions", {**chat, "max_tokens": 9, "max_completion_tokens": 3})
    assert both["usage"]["completion_tokens"] == 3
    without = {name: value for name, value in text.items() if name != "max_tokens"}
    assert full(http, "/completions", without)["usage"]["completion_tokens"] == 16


def test_content_parts_equal_their_joined_string(http, chat) -> None:
    parts = [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "about the sea."}]
    split = {**chat, "messages": [{"role": "user", "content": parts}]}
    assert full(http, "/chat/completions", split)["choices"] == full(http, "/chat/completions", chat)["choices"]


def test_history_with_tool_messages_is_accepted(http, chat) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "UTC"}'}}
    history = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
    ]
    plain = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": '{"name":"time","arguments":"{\\"zone\\": \\"UTC\\"}"}'},
        {"role": "user", "content": "Tool result: 12:00"},
    ]
    with_tools = {**chat, "messages": history, "tools": [{"type": "function", "function": {"name": "time"}}]}
    result = full(http, "/chat/completions", with_tools)
    assert result["choices"] == full(http, "/chat/completions", {**chat, "messages": plain})["choices"]


def test_official_client_parses_all_responses(client: openai.OpenAI, chat, text) -> None:
    answer = client.chat.completions.create(**chat, logprobs=True)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == len(answer.choices[0].logprobs.content)
    assert answer.model_extra["millm"]["steering"] is None
    assert answer._request_id.startswith("req_")
    stream = client.chat.completions.create(**chat, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == answer.choices[0].message.content
    spoken = client.completions.create(**text, logprobs=1)
    chunks = client.completions.create(**text, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == spoken.choices[0].text
