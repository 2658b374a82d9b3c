"""Requests of the experiment tests, and a reader of their streams."""

import json
from typing import Any

import httpx

MESSAGES = [{"role": "user", "content": "Tell me about the sea."}]
CHAT: dict[str, Any] = {"messages": MESSAGES, "temperature": 0.8, "max_tokens": 12}
PUSH = {"features": [{"index": 3, "strength": 6.0}, {"index": 7, "strength": 5.0, "mode": "clamp"}]}


def events(api: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of every event; the last one is checked to be `[DONE]`."""
    answer = api.post(path, json=body).raise_for_status()
    assert answer.headers["content-type"].startswith("text/event-stream")
    *told, done = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    assert done == "[DONE]"
    return [json.loads(line) for line in told]


def answered(api: httpx.Client, **changes: Any) -> dict[str, Any]:
    """The answer of the ordinary endpoint to the same question."""
    body = {"model": "tiny-llama", **CHAT, **changes}
    return dict(api.post("/v1/chat/completions", json=body).raise_for_status().json())
