"""`/v1/responses` on a real model: calls, structured answers, steering, and disconnects."""

import time
from typing import Literal

import httpx
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.fixtures.process import Server

pytestmark = pytest.mark.demo

MODEL = "smollm2-135m-instruct"
ROLES = ("user", "assistant")
WEATHER = {
    "type": "function",
    "strict": True,
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(demo_server: Server) -> OpenAI:
    return OpenAI(base_url=demo_server.base_url, api_key="none", max_retries=0, timeout=120)


CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "CITY"}}</tool_call>'
"""In the model's own syntax."""


def shown(*cities: str) -> list[dict[str, str]]:
    """Questions and calls, and a last question."""
    turns = [(f"What is the weather in {city}?", CALL.replace("CITY", city)) for city in cities]
    messages = [{"role": role, "content": text} for turn in turns for role, text in zip(ROLES, turn, strict=True)]
    return messages[:-1]


def test_tool_call_equals_that_of_chat(client: OpenAI) -> None:
    conversation = shown("Rome", "Oslo", "Lima", "Paris")
    request = {"model": MODEL, "input": conversation, "tools": [WEATHER], "temperature": 0, "max_output_tokens": 40}
    with client.responses.stream(**request) as stream:
        names = [event.type for event in stream]
        (call,) = stream.get_final_response().output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert call.parsed_arguments == {"city": "Paris"}
    assert "response.function_call_arguments.done" in names
    nested = {"type": "function", "function": {key: value for key, value in WEATHER.items() if key != "type"}}
    chat = client.chat.completions.create(
        model=MODEL, messages=conversation, tools=[nested], temperature=0, max_tokens=40
    )
    (tool_call,) = chat.choices[0].message.tool_calls
    assert (tool_call.function.name, tool_call.function.arguments) == (call.name, call.arguments)


def test_forced_tool_call_uses_the_named_tool(client: OpenAI) -> None:
    called = client.responses.create(
        model=MODEL,
        input="What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        max_output_tokens=40,
    )
    (call,) = called.output
    assert (call.name, call.arguments) == ("get_weather", '{"city":"Paris"}')


class Animal(BaseModel):
    """A small answer."""

    kind: Literal["dog", "fish"]
    legs: Literal[0, 4]


def test_structured_answer_is_parsed(client: OpenAI) -> None:
    parsed = client.responses.parse(
        model=MODEL, input="Describe a dog.", temperature=0, max_output_tokens=40, text_format=Animal
    )
    assert parsed.output_parsed.kind == "dog"


def test_profile_is_selected_by_model_name(client: OpenAI) -> None:
    request = {"input": "Tell me about the sea.", "temperature": 0, "max_output_tokens": 24}
    yelling = client.responses.create(model=f"{MODEL}:yelling", **request)
    letters = [letter for letter in yelling.output_text if letter.isalpha()]
    assert sum(letter.isupper() for letter in letters) > 0.8 * len(letters)
    assert yelling.millm["profile"] == "yelling"
    assert client.responses.create(model=MODEL, **request).output_text != yelling.output_text


def test_disconnect_cancels_the_request(client: OpenAI, demo_server: Server) -> None:
    """A thousand tokens would need far longer."""
    request = {"model": MODEL, "input": "Tell me about the sea.", "max_output_tokens": 1000, "stream": True}
    for _ in range(2):
        with client.responses.create(**request, extra_body={"ignore_eos": True}) as stream:
            assert [next(stream).type for _ in range(6)][-1] == "response.output_text.delta"
    gone = time.monotonic()
    while httpx.get(f"{demo_server.url}/api/status").json()["in_flight"]:
        assert time.monotonic() - gone < 3
        time.sleep(0.02)
