"""Strict checks of responses and events against OpenAI's published types: types, required keys, no unknown key."""

import json
from collections.abc import Iterator
from typing import Any, get_args

import httpx
from openai import BaseModel
from openai.types.responses import Response, ResponseStreamEvent

OURS = {"millm", "store", "presence_penalty", "frequency_penalty", "bytes"}
"""Missing in openai-python's types: `millm`, undocumented fields of the API, and bytes in a delta's logprobs."""

EVENTS: dict[str, type[BaseModel]] = {
    get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(get_args(ResponseStreamEvent)[0])
}


def response(sent: Any) -> Response:
    return _checked(Response, sent)


def event(sent: Any) -> BaseModel:
    return _checked(EVENTS[sent["type"]], sent)


def _checked(shape: type[BaseModel], sent: Any) -> Any:
    read = shape.model_validate_json(json.dumps(sent), strict=True)
    assert set(_unpublished(read)) <= OURS
    return read


def _unpublished(value: Any) -> Iterator[str]:
    """Keys that the published types do not have, at any depth."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from _unpublished(getattr(value, name))
    elif isinstance(value, list):
        for each in value:
            yield from _unpublished(each)


def full(http: httpx.Client, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A response, checked."""
    answer = http.post("/responses", json={**body, **fields})
    assert answer.status_code == 200, answer.text
    response(answer.json())
    return answer.json()


def events(http: httpx.Client, body: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """A stream's events, each checked: its shape, its name, its number."""
    with http.stream("POST", "/responses", json={**body, **fields, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = answer.read().decode().split("\n\n")
    assert frames.pop() == ""
    result = []
    for frame in frames:
        name, data = frame.split("\n")
        result.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {result[-1]['type']}"
        event(result[-1])
    assert [each["sequence_number"] for each in result] == list(range(len(result)))
    return result
