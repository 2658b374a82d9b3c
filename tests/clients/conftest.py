"""Every client once, in its own environment, on a real demo server; and the same questions over plain HTTP."""

import json
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients import environments
from tests.clients.roster import Client
from tests.fixtures.process import Server

QUESTION = "Tell me about the sea."
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Oslo", "Rome"]},
        "degrees": {"type": "integer", "minimum": 0, "maximum": 40},
    },
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up_weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up_weather", "arguments": '{"city": "Oslo"}'}}
AFTER_A_CALL = [
    {"role": "user", "content": "What is the weather in Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Rain, 7 degrees."},
]
SECONDS = 240

QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
    "AI_SDK_LOG_WARNINGS": "false",
    "NO_PROXY": "127.0.0.1",
}
"""What keeps clients from asking the internet for prices, or telling it of themselves."""

Seen = Callable[[Client], dict[str, Any]]


@pytest.fixture(scope="session")
def task(demo_server: Server) -> dict[str, Any]:
    """What each client is asked to do."""
    return {
        "base_url": demo_server.base_url,
        "model": demo_server.model,
        "steered": f"{demo_server.model}:yelling",
        "question": QUESTION,
        "max_tokens": 16,
        "long_text": "sea " * 9000,
        "schema": SCHEMA,
        "tool": TOOL,
        "after_a_call": AFTER_A_CALL,
        "texts": ["The sea is wide.", "Ships are small, and the sea is not.", "Bread needs flour, water and time."],
    }


@pytest.fixture(scope="session")
def seen(task: dict[str, Any]) -> Seen:
    """Feature → what the client saw of it."""

    @cache
    def once(client: Client) -> dict[str, Any]:
        return run(client, task)

    return once


def run(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        command(client), input=json.dumps({"task": task, "features": client.features}),
        env={**environments.outside(), **QUIET}, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def command(client: Client) -> list[str | Path]:
    if client.environment == "node":
        return ["node", environments.node(client.path.parent) / client.script]
    return [environments.python(client.environment), client.path]


@pytest.fixture(scope="session")
def plain(task: dict[str, Any]) -> Callable[..., Any]:
    """The same request without any client: path and body in, answer out."""

    @cache
    def ask(path: str, body: str) -> Any:
        answer = httpx.post(f"{task['base_url']}/{path}", content=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return lambda path, **body: ask(path, json.dumps({"model": task["model"], **body}))


@pytest.fixture(scope="session")
def plain_chat(task: dict[str, Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    messages = [{"role": "user", "content": task["question"]}]
    return partial(plain, "chat/completions", messages=messages, temperature=0, max_tokens=task["max_tokens"])
