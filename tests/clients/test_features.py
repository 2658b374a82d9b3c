"""Each client of the roster sees the same as plain HTTP: one test per feature, one case per client."""

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.clients.conftest import SCHEMA, TOOL, Seen
from tests.clients.roster import CLIENTS, FEATURES, Client, having

pytestmark = [pytest.mark.clients, pytest.mark.demo]

Plain = Callable[..., Any]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`test_streaming` runs for every client that streams."""
    if "client" in metafunc.fixturenames:
        able = having(metafunc.function.__name__.removeprefix("test_"))
        metafunc.parametrize("client", able, ids=[client.name for client in able])


def shown(seen: Seen, client: Client, feature: str) -> Any:
    result = seen(client)[feature]
    assert "failed" not in result, result["failed"]
    return result["seen"]


def text(answer: Any) -> str:
    content: str = answer["choices"][0]["message"]["content"]
    return content


def obeys(arguments: dict[str, Any], schema: dict[str, Any]) -> bool:
    """For the schemas used here, in which all properties are required and no others allowed."""
    city, other = schema["properties"]
    return (
        list(arguments) == [city, other]
        and arguments[city] in schema["properties"][city]["enum"]
        and type(arguments[other]) is int
        and schema["properties"][other].get("minimum", -math.inf) <= arguments[other]
        and arguments[other] <= schema["properties"][other].get("maximum", math.inf)
    )


def test_features_and_claims_match() -> None:
    here = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(FEATURES) <= here
    for client in CLIENTS:
        assert set(client.features) <= set(FEATURES), client.name
        assert client.path.exists()


def test_models(seen: Seen, client: Client, task: dict[str, Any]) -> None:
    listed = [entry["id"] for entry in httpx.get(f"{task['base_url']}/models").json()["data"]]
    assert shown(seen, client, "models") == listed
    assert {task["model"], task["steered"]} <= set(listed)


def test_chat(seen: Seen, client: Client, plain_chat: Plain) -> None:
    assert shown(seen, client, "chat") == text(plain_chat())


def test_streaming(seen: Seen, client: Client, plain_chat: Plain) -> None:
    pieces = shown(seen, client, "streaming")
    assert "".join(pieces).rstrip("\n") == text(plain_chat())
    assert sum(bool(piece) for piece in pieces) > 3


def test_profile(seen: Seen, client: Client, plain_chat: Plain, task: dict[str, Any]) -> None:
    steered = text(plain_chat(model=task["steered"]))
    assert shown(seen, client, "profile") == steered != text(plain_chat())


def test_usage(seen: Seen, client: Client, plain_chat: Plain) -> None:
    prompt, completion, total = shown(seen, client, "usage")
    usage = plain_chat()["usage"]
    assert (prompt, completion) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert prompt + completion == total


def test_completions(seen: Seen, client: Client, plain: Plain, task: dict[str, Any]) -> None:
    result = shown(seen, client, "completions")
    assert task["question"] in result["prompt"]
    answer = plain("completions", prompt=result["prompt"], temperature=0, max_tokens=task["max_tokens"])
    assert result["text"] == answer["choices"][0]["text"]


def test_tools(seen: Seen, client: Client) -> None:
    call = shown(seen, client, "tools")
    assert call["name"] == TOOL["function"]["name"]
    assert obeys(json.loads(call["arguments"]), TOOL["function"]["parameters"]), call


def test_streamed_tools(seen: Seen, client: Client) -> None:
    call = shown(seen, client, "streamed_tools")
    assert call["name"] == TOOL["function"]["name"]
    assert obeys(json.loads(call["arguments"]), TOOL["function"]["parameters"]), call


def test_tool_results(seen: Seen, client: Client, plain_chat: Plain, task: dict[str, Any]) -> None:
    assert shown(seen, client, "tool_results") == text(plain_chat(messages=task["after_a_call"]))


def test_structured(seen: Seen, client: Client) -> None:
    parsed = shown(seen, client, "structured")
    assert obeys(parsed, SCHEMA), parsed


def test_embeddings(seen: Seen, client: Client, plain: Plain, task: dict[str, Any]) -> None:
    vectors = shown(seen, client, "embeddings")
    expected = [entry["embedding"] for entry in plain("embeddings", input=task["texts"])["data"]]
    assert len(vectors) == len(expected) == len(task["texts"])
    for vector, other in zip(vectors, expected, strict=True):
        assert vector == pytest.approx(other, abs=1e-6)
        assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-4)


def test_responses(seen: Seen, client: Client, plain_chat: Plain) -> None:
    assert shown(seen, client, "responses") == text(plain_chat())


def test_streamed_responses(seen: Seen, client: Client, plain_chat: Plain) -> None:
    pieces = shown(seen, client, "streamed_responses")
    assert "".join(pieces) == text(plain_chat())
    assert sum(bool(piece) for piece in pieces) > 3


def test_structured_responses(seen: Seen, client: Client) -> None:
    parsed = shown(seen, client, "structured_responses")
    assert obeys(parsed, SCHEMA), parsed


def test_unknown_model(seen: Seen, client: Client) -> None:
    raised = shown(seen, client, "unknown_model")
    assert raised["class"] == client.errors["unknown_model"], raised
    assert "The model `nobody/nothing` does not exist" in raised["message"]


def test_too_long(seen: Seen, client: Client) -> None:
    raised = shown(seen, client, "too_long")
    assert raised["class"] == client.errors["too_long"], raised
    assert "maximum context length is 8192 tokens" in raised["message"]
