"""Structured output and forced calls of real models, as the clients parse them."""

import json
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai.lib.streaming.chat import ContentDoneEvent, FunctionToolCallArgumentsDeltaEvent

from tests.fixtures.process import Server


class Weather(pydantic.BaseModel):
    """Fits a context of 256 tokens with any random content."""

    model_config = pydantic.ConfigDict(extra="forbid")

    sky: Literal["clear", "grey"]
    degrees: int = pydantic.Field(ge=-40, le=50)
    wind: bool


class Report(pydantic.BaseModel):
    """A schema with a nested definition (`$ref`)."""

    model_config = pydantic.ConfigDict(extra="forbid")

    today: Weather
    kind: Literal["short"] = "short"


TOOL = openai.pydantic_function_tool(Weather, name="set_weather")
OTHER = {"type": "function", "function": {"name": "get_time"}}
ASK = [{"role": "user", "content": "Set it."}]


@pytest.fixture
def ask(server: Server) -> dict[str, Any]:
    """A chat of random words."""
    return {"model": server.model, "messages": ASK, "temperature": 1.5, "max_tokens": 150}


@pytest.mark.parametrize("seed", range(5))
def test_json_schema_constrains_any_model(client, ask, seed) -> None:
    answer = client.chat.completions.parse(**ask, seed=seed, response_format=Report)
    assert isinstance(answer.choices[0].message.parsed, Report)
    assert answer.choices[0].finish_reason == "stop"


def test_every_choice_follows_the_schema(client, ask) -> None:
    answer = client.chat.completions.parse(**ask, seed=1, n=4, response_format=Weather)
    assert all(choice.message.parsed for choice in answer.choices)
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_streamed_structured_output_equals_full(client, ask) -> None:
    full = client.chat.completions.parse(**ask, seed=3, response_format=Report)
    with client.chat.completions.stream(**ask, seed=3, response_format=Report) as stream:
        done = [event.parsed for event in stream if isinstance(event, ContentDoneEvent)]
    assert done == [full.choices[0].message.parsed]


def test_json_object_needs_no_prompt(client, ask) -> None:
    for seed in range(3):
        answer = client.chat.completions.create(**ask, seed=seed, response_format={"type": "json_object"})
        content = answer.choices[0].message.content
        assert content.startswith("{")
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(content), dict)


def test_text_format_has_no_effect(client, chat) -> None:
    plain = client.chat.completions.create(**chat).choices[0].message.content
    requested = client.chat.completions.create(**chat, response_format={"type": "text"})
    assert requested.choices[0].message.content == plain


def test_steering_skips_constrained_tokens(client, chat) -> None:
    """`skip_constrained`: of the prompt all but the first position and the last, which chooses a token."""
    schema = {"name": "w", "schema": Weather.model_json_schema()}
    body = {**chat, "response_format": {"type": "json_schema", "json_schema": schema}}

    def steered(**more: bool) -> tuple[int, Any]:
        steering = {"features": [{"index": 3, "strength": 6.0}], **more}
        answer = client.chat.completions.create(**body, extra_body={"steering": steering})
        return answer.model_extra["millm"]["tokens_steered"], answer.usage

    everywhere, usage = steered()
    prompt_only, _ = steered(skip_constrained=True)
    assert prompt_only == usage.prompt_tokens - 2
    assert everywhere > prompt_only


# ------------------------------------------------------------------------------------------------------ forced calls


@pytest.mark.parametrize("seed", range(3))
def test_named_function_is_called_by_any_model(client, ask, seed) -> None:
    choice = {"type": "function", "function": {"name": "set_weather"}}
    answer = client.chat.completions.parse(**ask, seed=seed, tools=[TOOL], tool_choice=choice)
    message = answer.choices[0].message
    assert message.content is None
    assert isinstance(message.tool_calls[0].function.parsed_arguments, Weather)


@pytest.mark.parametrize("parallel", [False, True])
def test_any_model_makes_a_required_call(client, ask, parallel) -> None:
    for seed in range(3):
        answer = client.chat.completions.create(
            **ask, seed=seed, tools=[TOOL, OTHER], tool_choice="required", parallel_tool_calls=parallel
        )
        choice = answer.choices[0]
        assert choice.message.tool_calls
        finished = choice.message.tool_calls[: None if choice.finish_reason == "tool_calls" else -1]
        for call in finished:
            arguments = json.loads(call.function.arguments)
            assert arguments == {} if call.function.name == "get_time" else Weather.model_validate(arguments)
        if not parallel:
            assert (choice.finish_reason, len(choice.message.tool_calls)) == ("tool_calls", 1)


def test_streamed_forced_call_equals_full(client, ask) -> None:
    body = {**ask, "seed": 5, "tools": [TOOL], "tool_choice": "required"}
    full = client.chat.completions.parse(**body).choices[0].message.tool_calls[0].function
    with client.chat.completions.stream(**body) as stream:
        bits = [event.arguments_delta for event in stream if isinstance(event, FunctionToolCallArgumentsDeltaEvent)]
        final = stream.get_final_completion().choices[0].message
    assert final.tool_calls[0].function.parsed_arguments == full.parsed_arguments
    assert "".join(bits) == full.arguments
    assert len(bits) > 3


REFUSED = {
    "type": ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "y"}}}},
             "response_format", "Invalid type: y"),
    "look-ahead": ({"response_format": {"type": "json_schema", "json_schema":
                    {"name": "x", "schema": {"type": "string", "pattern": "(?=a)"}}}}, "response_format", "look-a"),
    "tool": ({"tools": [{"type": "function", "function":
              {"name": "f", "parameters": {"properties": {"a": {"type": "y"}}}}}], "tool_choice": "required"},
             "tools", "Invalid type: y"),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "param", "reason"), REFUSED.values(), ids=REFUSED)
def test_unsupported_schema_is_rejected_before_generation(client, ask, stream, body, param, reason) -> None:
    with pytest.raises(openai.BadRequestError, match=reason) as refusal:
        client.chat.completions.create(**ask, **body, stream=stream)
    assert refusal.value.param == param


# ----------------------------------------------------------------------------------------------------- the demo model


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def demo(demo_server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=demo_server.base_url, api_key="any", max_retries=0, timeout=60)


@pytest.mark.demo
def test_real_model_fills_the_schema(demo, demo_server) -> None:
    ask = [{"role": "user", "content": "Ada is 36 years old. Describe her."}]
    answer = demo.chat.completions.parse(
        model=demo_server.model, messages=ask, temperature=0, max_tokens=60, response_format=Person
    )
    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)


@pytest.mark.demo
def test_real_model_calls_the_described_function(demo, demo_server) -> None:
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    city["additionalProperties"] = False
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": city}}
    answer = demo.chat.completions.create(
        model=demo_server.model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[tool, OTHER],
        tool_choice="required",
        temperature=0,
        max_tokens=60,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
