"""Invalid requests get a 400 in OpenAI's error format that names the field, never the sent value."""

import json

import httpx
import pytest
from starlette.testclient import TestClient

from tests.api.openai.app_without_model import without_model

SECRET = "Zanzibar"  # sent as the wrong value wherever that is possible
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = {"model": "m", "prompt": "hi"}


@pytest.fixture(scope="module")
def client() -> TestClient:
    return without_model()


BAD_CHATS = {
    "temperature too high": ({"temperature": 2.1}, "temperature", "from 0 to 2"),
    "temperature negative": ({"temperature": -0.1}, "temperature", "from 0 to 2"),
    "temperature a string": ({"temperature": SECRET}, "temperature", "number"),
    "temperature a bool": ({"temperature": True}, "temperature", "number"),
    "top_p": ({"top_p": 1.5}, "top_p", "from 0 to 1"),
    "min_p": ({"min_p": -1}, "min_p", "from 0 to 1"),
    "top_k a float": ({"top_k": 1.5}, "top_k", "integer"),
    "top_k": ({"top_k": -2}, "top_k", "from -1"),
    "presence_penalty": ({"presence_penalty": 3}, "presence_penalty", "from -2 to 2"),
    "frequency_penalty": ({"frequency_penalty": -3}, "frequency_penalty", "from -2 to 2"),
    "n zero": ({"n": 0}, "n", "from 1 to 128"),
    "n too many": ({"n": 129}, "n", "from 1 to 128"),
    "n a string": ({"n": "2"}, "n", "integer"),
    "max_tokens zero": ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    "max_tokens a string": ({"max_tokens": SECRET}, "max_tokens", "integer"),
    "max_completion_tokens": ({"max_completion_tokens": -5}, "max_completion_tokens", "greater than or equal to 1"),
    "stop a number": ({"stop": 5}, "stop", "list"),
    "stop of numbers": ({"stop": ["a", 5]}, "stop.1", "string"),
    "stop too many": ({"stop": [str(i) for i in range(17)]}, "stop", "at most 16"),
    "stream a string": ({"stream": "true"}, "stream", "boolean"),
    "include_usage": ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "boolean"),
    "stream_options": ({"stream_options": SECRET}, "stream_options", "dictionary"),
    "seed a float": ({"seed": 1.5}, "seed", "integer"),
    "seed huge": ({"seed": 2**70}, "seed", "from -9223372036854775808"),
    "logit_bias a list": ({"logit_bias": [1]}, "logit_bias", "dictionary"),
    "logit_bias key": ({"logit_bias": {SECRET: 1}}, "logit_bias", "pattern"),
    "logit_bias value": ({"logit_bias": {"5": 101}}, "logit_bias.5", "from -100 to 100"),
    "logprobs a number": ({"logprobs": 5}, "logprobs", "boolean"),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs", "needs `logprobs`"),
    "messages empty": ({"messages": []}, "messages", "at least 1"),
    "messages a string": ({"messages": SECRET}, "messages", "list"),
    "messages null": ({"messages": None}, "messages", "required"),
    "message a string": ({"messages": [SECRET]}, "messages.0", "dictionary"),
    "role missing": ({"messages": [{"content": "x"}]}, "messages.0.role", "required"),
    "role unknown": ({"messages": [{"role": SECRET, "content": "x"}]}, "messages.0.role", "'developer', 'system'"),
    "content missing": ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
    "content a number": ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "string or a list"),
    "part a string": ({"messages": [{"role": "user", "content": [SECRET]}]}, "messages.0.content.0", "dictionary"),
    "model a number": ({"model": 5}, "model", "string"),
    "model empty": ({"model": ""}, "model", "at least 1 character"),
    "model null": ({"model": None}, "model", "required"),
    "response_format": ({"response_format": {"type": SECRET}}, "response_format.type", "'json_schema'"),
    "tools": ({"tools": SECRET}, "tools", "list"),
    "tool_choice": ({"tool_choice": SECRET}, "tool_choice", "'auto' or 'none'"),
    "profile a number": ({"profile": 5}, "profile", "string"),
    "steering a string": ({"steering": SECRET}, "steering", "dictionary"),
    "steering unknown key": ({"steering": {"strength": 5}}, "steering.strength", "not permitted"),
    "steering index": ({"steering": {"features": [{"index": -1}]}}, "steering.features.0.index", "or equal to 0"),
    "steering mode": ({"steering": {"features": [{"index": 1, "mode": SECRET}]}}, "steering.features.0.mode", "'add'"),
    "activations": ({"activations": {"top_k": 101}}, "activations.top_k", "less than or equal to 100"),
}

BAD_COMPLETIONS = {
    "prompt a number": ({"prompt": 5}, "prompt", "string"),
    "prompt empty list": ({"prompt": []}, "prompt", "not empty"),
    "prompt of an empty list": ({"prompt": [[]]}, "prompt", "string"),
    "prompt negative ids": ({"prompt": [1, -1]}, "prompt", "token ids"),
    "prompt of bools": ({"prompt": [True]}, "prompt", "token ids"),
    "logprobs": ({"logprobs": 6}, "logprobs", "from 0 to 5"),
    "logprobs a bool": ({"logprobs": True}, "logprobs", "integer"),
    "max_tokens": ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
}

REFUSED_CHATS = {
    "image": ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages"),
    "audio": ({"audio": {"voice": SECRET}}, "audio"),
    "modalities": ({"modalities": ["text", "audio"]}, "modalities"),
    "chat_template": ({"chat_template": SECRET}, "chat_template"),
    "echo": ({"echo": True}, "echo"),
    "skip_special_tokens": ({"skip_special_tokens": False}, "skip_special_tokens"),
}

REFUSED_COMPLETIONS = {
    "suffix": ({"suffix": SECRET}, "suffix"),
}

NOT_JSON = {
    "nothing": b"",
    "a word": b"hello",
    "a list": b"[1]",
    "a number": b"5",
    "null": b"null",
    "NaN": b'{"model": "m", "prompt": "hi", "temperature": NaN}',
    "Infinity": b'{"model": "m", "prompt": "hi", "unknown": -Infinity}',
    "a number beyond floats": b'{"model": "m", "prompt": "hi", "temperature": 1e999}',
    "half a surrogate pair": b'{"model": "m", "prompt": "\\ud800 and on"}',
    "half a surrogate pair as a key": b'{"model": "m", "prompt": "hi", "\\udc00x": 1}',
    "invalid UTF-8": b'{"model": "m", "prompt": "\xff"}',
    "a thousand levels": b'{"model": "m", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "cut off": b'{"model": "m", "prompt": "h',
    "more behind it": b'{"model": "m", "prompt": "hi"} x',
}


def refusal(answer: httpx.Response, code: str) -> dict[str, str]:
    """The error object of a 400, checked for completeness and leaks."""
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert SECRET not in answer.text
    assert len(answer.text) < 500
    assert answer.headers["x-request-id"].startswith("req_")
    return error


@pytest.mark.parametrize(("change", "param", "hint"), BAD_CHATS.values(), ids=BAD_CHATS)
def test_invalid_chat_field_is_named_with_allowed_values(client, change, param, hint) -> None:
    error = refusal(client.post("/v1/chat/completions", json=CHAT | change), "invalid_value")
    assert error["param"] == param
    assert hint in error["message"]


@pytest.mark.parametrize(("change", "param", "hint"), BAD_COMPLETIONS.values(), ids=BAD_COMPLETIONS)
def test_invalid_completion_field_is_named_with_allowed_values(client, change, param, hint) -> None:
    error = refusal(client.post("/v1/completions", json=TEXT | change), "invalid_value")
    assert error["param"] == param
    assert hint in error["message"]


@pytest.mark.parametrize(("change", "param"), REFUSED_CHATS.values(), ids=REFUSED_CHATS)
def test_unsupported_chat_fields_are_rejected_by_name(client, change, param) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | change)
    assert refusal(answer, "unsupported_parameter")["param"] == param


@pytest.mark.parametrize(("change", "param"), REFUSED_COMPLETIONS.values(), ids=REFUSED_COMPLETIONS)
def test_unsupported_completion_fields_are_rejected_by_name(client, change, param) -> None:
    answer = client.post("/v1/completions", json=TEXT | change)
    assert refusal(answer, "unsupported_parameter")["param"] == param


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_body_that_is_not_a_json_object_is_rejected(client, body, stream) -> None:
    body = body.replace(b'"m"', b'"m", "stream": true') if stream else body
    answer = client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert refusal(answer, "invalid_value")["param"] is None


HARMLESS = {
    "nulls": dict.fromkeys(("temperature", "n", "stop", "seed", "tools", "logit_bias", "stream_options")),
    "neutral values": {
        "functions": [],
        "function_call": "auto",
        "tool_choice": "none",
        "stop": "",
        "modalities": ["text"],
    },
    "ignored by name": {"user": "u", "store": True, "metadata": {}, "reasoning_effort": "low", "service_tier": "auto"},
    "unknown": {"num_ctx": 4096, "keep_alive": "5m", "chat_template_kwargs": {"a": [1]}},
    "ends of ranges": {"temperature": 0, "top_p": 0, "n": 128, "frequency_penalty": -2, "seed": -(2**63), "top_k": -1},
    "tools of Open WebUI": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    "a huge limit": {"max_tokens": 10**12},
    "no steering": {"steering": None},
    "no steering either": {"steering": {}},
    "text format": {"response_format": {"type": "text"}},
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_extra_fields_of_real_clients_are_accepted(client, change) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | change)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_loaded")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain;charset=UTF-8", "", "application/x-www-form-urlencoded"]
)
def test_json_is_parsed_regardless_of_content_type(client, content_type) -> None:
    body = json.dumps(TEXT).encode()
    answer = client.post("/v1/completions", content=body, headers={"content-type": content_type})
    assert answer.json()["error"]["code"] == "model_not_loaded"
