"""Events of a streamed response: published order, consistency, and failures."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec
import openai
import pytest
from pydantic import BaseModel

from millm.api import sse
from millm.api.openai.responses.items import ResponseWriter
from millm.api.openai.responses.request import ResponsesRequest, to_chat_request
from millm.api.openai.responses.route import NamedEventEncoder, initial_response
from millm.engine.messages import InjectFault
from millm.generation.chat import prepare_chat
from millm.generation.output import ChoiceEnd, OutputDelta, ToolCallPart
from millm.generation.tools import tool_config_of
from tests.api.openai import openai_schema
from tests.api.openai.test_responses import ASK, FLAT, SCHEMA
from tests.fixtures.inside import Inside, serving

WORDS = (
    r"output_item\.added content_part\.added (output_text\.delta )+"
    r"output_text\.done content_part\.done output_item\.done "
)
THOUGHTS = WORDS.replace("output_text", "reasoning_text")
CALL = r"output_item\.added (function_call_arguments\.delta )+function_call_arguments\.done output_item\.done "
BEGIN, END = r"created in_progress ", r"(completed|incomplete) "

ORDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "words": (WORDS, {}),
    "one token": (WORDS, {"max_output_tokens": 1}),
    "a schema": (WORDS, {"text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}}}),
    "a named call": (CALL, {"tools": [FLAT], "tool_choice": {"type": "function", "name": "look_up"}}),
    "some call": (CALL, {"tools": [FLAT], "tool_choice": "required", "max_output_tokens": 60}),
    "calls": (
        f"({CALL}){{2,}}",
        {
            "tools": [FLAT], "tool_choice": "required", "parallel_tool_calls": True, "max_output_tokens": 200,
            "temperature": 1, "seed": 3,
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    """A server whose engine can be made to fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLM_TESTING_FAULTS", "1")
        with serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("responses")) as inside:
            yield inside


@pytest.fixture
def http(inside: Inside) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=inside.base_url, timeout=30) as client:
        yield client


@pytest.fixture
def client(inside: Inside) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=inside.base_url, api_key="any", max_retries=0, timeout=30) as client:
        yield client


def order(events: list[dict[str, Any]]) -> str:
    return "".join(event["type"].removeprefix("response.") + " " for event in events)


def check_sum(events: list[dict[str, Any]]) -> None:
    """Deltas join to parts, parts to items, items to the response."""
    last = events[-1]["response"]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == last["output"]
    for index, item in enumerate(last["output"]):
        of_item = [event for event in events if event.get("output_index") == index]
        assert of_item[0]["item"]["id"] == item["id"]
        assert {event["item_id"] for event in of_item if "item_id" in event} == {item["id"]}
        deltas = "".join(event["delta"] for event in of_item if event["type"].endswith(".delta"))
        done = [event for event in of_item if event["type"].endswith(("text.done", "arguments.done"))]
        parts = [event["part"] for event in of_item if event["type"] == "response.content_part.done"]
        if item["type"] == "function_call":
            assert deltas == done[0]["arguments"] == item["arguments"]
        else:
            assert deltas == done[0]["text"] == item["content"][0]["text"]
            assert parts == item["content"]


@pytest.mark.parametrize(("expected", "fields"), ORDERS.values(), ids=ORDERS)
def test_events_have_published_order_and_add_up(http, expected, fields) -> None:
    events = openai_schema.events(http, ASK, **fields)
    assert re.fullmatch(BEGIN + expected + END, order(events)), order(events)
    check_sum(events)
    last = events[-1]["response"]
    statuses = [item["status"] for item in last["output"]]
    assert statuses == ["completed"] * (len(statuses) - 1) + [last["status"]]
    assert (last["completed_at"] is None) == (last["status"] == "incomplete")
    assert [event["response"]["status"] for event in events[:2]] == ["in_progress"] * 2


def test_official_client_parses_the_stream(client) -> None:
    """The client's accumulation checks every event against the earlier ones."""
    with client.responses.stream(**ASK, extra_body={"stop": ["e"]}) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.status == "completed"
    assert snapshots[-1] == final.output_text == client.responses.create(**ASK, extra_body={"stop": ["e"]}).output_text


class Place(BaseModel):
    """One of four answers."""

    city: Literal["Paris", "Rome"]
    warm: bool


def test_official_client_parses_structured_output(client) -> None:
    fields = {**ASK, "max_output_tokens": 60, "text_format": Place}
    parsed = client.responses.parse(**fields)
    assert isinstance(parsed.output_parsed, Place)
    with client.responses.stream(**fields) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


def written(inside: Inside, *pieces: OutputDelta) -> list[dict[str, Any]]:
    """The events of these deltas, each checked."""
    body = ResponsesRequest(**ASK, tools=[FLAT])
    chat = to_chat_request(body)
    tooling = tool_config_of(chat, tools_enabled=True)
    job = inside.run(prepare_chat(inside.state, chat, tooling, None, prefix="resp_"))
    writer = ResponseWriter(job, initial_response(job, body, tooling), logprobs=False)
    notation = NamedEventEncoder(writer)
    frames = [notation.encode_event(event) for piece in pieces for event in writer.output_events(piece)]
    events = [msgspec.json.decode(frame.split(b"\ndata: ")[1]) for frame in frames]
    for event in events:
        openai_schema.event(event)
    return events


def test_reasoning_text_and_calls_become_ordered_items(inside) -> None:
    events = written(
        inside,
        OutputDelta(0, reasoning="Hm"),
        OutputDelta(0, reasoning=".", text="I "),
        OutputDelta(
            0, text="look.", calls=(ToolCallPart(0, "call_1", "look_up"), ToolCallPart(0, arguments='{"word":'))
        ),
        OutputDelta(
            0,
            calls=(
                ToolCallPart(0, arguments='"sea"}'),
                ToolCallPart(1, "call_2", "look_up"),
                ToolCallPart(1, arguments="{}"),
            ),
        ),
        OutputDelta(0, text="So.", end=ChoiceEnd("tool_calls", 9, None, 2)),
    )
    assert re.fullmatch(BEGIN + THOUGHTS + WORDS + CALL + CALL + WORDS + "completed ", order(events))
    check_sum(events)
    result = events[-1]["response"]
    assert [item["type"] for item in result["output"]] == [
        "reasoning", "message", "function_call", "function_call", "message"
    ]  # fmt: skip
    assert [item.get("call_id") for item in result["output"]] == [None, None, "call_1", "call_2", None]
    assert result["usage"]["output_tokens"] == 9
    assert result["usage"]["input_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 0}


def test_empty_answer_is_an_empty_message(inside) -> None:
    events = written(inside, OutputDelta(0, end=ChoiceEnd("stop", 0, None, 0)))
    assert order(events) == (
        "created in_progress output_item.added content_part.added output_text.done content_part.done "
        "output_item.done completed "
    )
    assert events[-1]["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ]


def fail(inside: Inside, point: str, after: int) -> None:
    inside.run(
        inside.state.engine.inject(InjectFault(id=f"fault-{point}-{after}", point=point, kind="error", after=after))
    )


def test_midstream_failure_sends_error_and_partial_response(inside, http) -> None:
    fail(inside, "decode", 5)
    events = openai_schema.events(http, ASK)
    assert re.fullmatch(
        BEGIN + r"output_item\.added content_part\.added (output_text\.delta )+error failed ", order(events)
    )
    error, failed = events[-2], events[-1]["response"]
    assert (error["code"], error["param"]) == ("engine_failed", None)
    assert (failed["status"], failed["error"]) == ("failed", {"message": error["message"], "code": "server_error"})
    content = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    (item,) = failed["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", content)
    assert content


@pytest.mark.parametrize(("stream", "point"), [(False, "decode"), (False, "prefill"), (True, "prefill")])
def test_early_failure_is_an_ordinary_error(inside, http, stream, point) -> None:
    fail(inside, point, 0)
    answer = http.post("/responses", json={**ASK, "stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")
    assert http.post("/responses", json=ASK).status_code == 200


def test_waiting_stream_sends_keep_alives(inside, http, monkeypatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.0001)
    text = http.post("/responses", json={**ASK, "stream": True}).text
    assert ": working\n\n" in text
    assert [frame for frame in text.split("\n\n") if frame.startswith("event: response.in")]
    assert http.post("/responses", json=ASK).json()["output"]


def test_stream_that_fails_while_waiting_sends_opening_events(inside, http, monkeypatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.0001)
    fail(inside, "prefill", 0)
    frames = http.post("/responses", json={**ASK, "stream": True}).text.split("\n\n")
    assert frames[0] == ": working"
    result = [frame.split("\n")[0] for frame in frames if frame.startswith("event")]
    assert result == [
        "event: response.created", "event: response.in_progress", "event: error", "event: response.failed"
    ]  # fmt: skip
