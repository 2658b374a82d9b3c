"""Errors of a server with a model, as raised by the official client and as bytes."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fixtures.process import Server, running
from tests.fixtures.tiny import CONTEXT, FEATURES


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model_is_404_with_openai_wording(client, chat, stream) -> None:
    for model in ("gpt-5", "org/name", f"x:{chat['model']}"):
        with pytest.raises(openai.NotFoundError) as raised:
            client.chat.completions.create(**{**chat, "model": model}, stream=stream)
        assert raised.value.code == "model_not_found"
        assert raised.value.body["message"].startswith(f"The model `{model}` does not exist")
        assert raised.value.param == "model"


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_profile_is_404(client, chat, stream) -> None:
    ways: list[dict[str, Any]] = [
        {**chat, "extra_body": {"profile": "nope"}},
        {**chat, "extra_headers": {"X-Millm-Profile": "nope"}},
        {**chat, "model": f"{chat['model']}:nope"},
    ]
    for body in ways:
        with pytest.raises(openai.NotFoundError) as raised:
            client.chat.completions.create(**body, stream=stream)
        assert raised.value.code == "profile_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_oversized_prompt_is_rejected_with_openai_wording(client, chat, text, stream) -> None:
    long = "sea sky " * CONTEXT
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**{**chat, "messages": [{"role": "user", "content": long}]}, stream=stream)
    assert raised.value.code == "context_length_exceeded"
    assert raised.value.body["message"].startswith(f"This model's maximum context length is {CONTEXT} tokens")
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.completions.create(**{**text, "prompt": [5] * CONTEXT}, stream=stream)
    almost = client.completions.create(**{**text, "prompt": [5] * (CONTEXT - 1)})
    assert almost.usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("extension", "code"),
    [
        ({"steering": {"features": [{"index": FEATURES, "strength": 1}]}}, "invalid_steering"),
        ({"steering": {"features": [{"index": 1, "strength": 1, "sae": "nope"}]}}, "invalid_steering"),
        ({"steering": {"features": [{"index": 1}, {"index": 1}]}}, "invalid_steering"),
        ({"activations": {"features": [FEATURES]}}, "invalid_steering"),
        ({"activations": {}}, "invalid_steering"),
        ({"logit_bias": {"400000": 1}}, "invalid_value"),
    ],
)
def test_incompatible_steering_is_rejected(http, chat, extension, code) -> None:
    for stream in (False, True):
        answer = http.post("/chat/completions", json={**chat, **extension, "stream": stream})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_invalid_token_ids_and_choice_counts_are_rejected(http, text) -> None:
    for change, param in [({"prompt": [5, 10**6]}, "prompt"), ({"prompt": ["a"] * 100, "n": 100}, "n")]:
        answer = http.post("/completions", json={**text, **change})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.fixture
def fragile(tmp_path: Path, tiny_model: Path) -> Iterator[Server]:
    """A server of our own, to break."""
    with running("serve", str(tiny_model), model="tiny-llama", home=tmp_path) as server:
        yield server


def kill_engine(server: Server) -> None:
    found = subprocess.run(
        ["pgrep", "-P", str(server.process.pid), "-f", "spawn_main"], capture_output=True, text=True, check=True
    )
    os.kill(int(found.stdout), signal.SIGKILL)


def test_midstream_failure_is_the_last_event(fragile, chat) -> None:
    url = f"{fragile.base_url}/chat/completions"
    with httpx.stream("POST", url, json=hours_of_work(chat) | {"stream": True}) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert "choices" in json.loads(next(lines).removeprefix("data: "))
        kill_engine(fragile)
        frames = [line for line in lines if line]
    assert frames[-1] == "data: [DONE]"
    failure = json.loads(frames[-2].removeprefix("data: "))
    assert set(failure) == {"error"}
    assert (failure["error"]["type"], failure["error"]["code"]) == ("server_error", "engine_crashed")
    meanwhile = httpx.post(url, json=chat)
    assert (meanwhile.status_code, meanwhile.json()["error"]["code"]) == (503, "model_not_loaded")
    assert int(meanwhile.headers["retry-after"]) > 0


def hours_of_work(chat: dict[str, Any]) -> dict[str, Any]:
    """Far more than is ever waited for here."""
    return {**chat, "temperature": 1.0, "n": 64, "max_tokens": 200, "logit_bias": {"2": -100}}


def seconds(http: httpx.Client, chat: dict[str, Any]) -> float:
    started = time.monotonic()
    assert http.post("/chat/completions", json=chat).status_code == 200
    return time.monotonic() - started


@pytest.mark.parametrize("stream", [False, True])
def test_disconnect_frees_the_engine(server, http, chat, stream) -> None:
    alone = seconds(http, chat)
    url = f"{server.base_url}/chat/completions"
    if stream:
        with httpx.stream("POST", url, json=hours_of_work(chat) | {"stream": True}) as answer:
            lines = answer.iter_lines()
            assert all(next(lines) is not None for _ in range(20))
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=hours_of_work(chat), timeout=0.5)
    if stream:
        with httpx.stream(
            "POST", f"{server.base_url}/chat/completions", json=hours_of_work(chat) | {"stream": True}
        ) as answer:
            for index, _ in enumerate(answer.iter_lines()):
                if index == 10:
                    break
    assert seconds(http, chat) < alone + 1.0


def test_other_requests_are_served_during_generation(server, http, chat) -> None:
    body = hours_of_work(chat) | {"stream": True}
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body) as answer:
        lines = answer.iter_lines()  # dropped, it would close the connection
        next(lines)
        started = time.monotonic()
        assert http.get("/models").status_code == 200
        assert http.post("/chat/completions", json={**chat, "model": "nope"}).status_code == 404
        assert time.monotonic() - started < 1.0
