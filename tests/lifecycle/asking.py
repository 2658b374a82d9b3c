"""A short greedy answer over HTTP, equal for equal model and steering."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.fixtures.inside import Inside

KNOB = {"features": [{"index": 3, "strength": 6}]}


def body(model: str, **fields: Any) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": "The sea is wide",
        "max_tokens": 12,
        "temperature": 0,
        "ignore_eos": True,
        **fields,
    }


def post(inside: Inside, **fields: Any) -> httpx.Response:
    model = fields.pop("model", "tiny-llama")
    return httpx.post(f"{inside.base_url}/completions", json=body(model, **fields), timeout=60, trust_env=False)


def text(inside: Inside, **fields: Any) -> str:
    answer = post(inside, **fields)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["choices"][0]["text"]
    return found


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


class Stream:
    """A running streamed answer."""

    def __init__(self) -> None:
        self.text = ""
        self.receipt: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.begun = threading.Event()

    def read(self, inside: Inside, fields: dict[str, Any]) -> None:
        model = fields.pop("model", "tiny-llama")
        asked = body(model, stream=True, **fields)
        with httpx.stream("POST", f"{inside.base_url}/completions", json=asked, timeout=60, trust_env=False) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    self._take(json.loads(line.removeprefix("data: ")))
        self.begun.set()

    def _take(self, event: dict[str, Any]) -> None:
        self.error = event.get("error", self.error)
        self.receipt = event.get("millm") or self.receipt
        self.text += "".join(choice["text"] for choice in event.get("choices", ()))
        self.begun.set()


@contextmanager
def streaming(inside: Inside, **fields: Any) -> Iterator[Stream]:
    """Read the stream from its first token to its end."""
    stream = Stream()
    thread = threading.Thread(target=stream.read, args=(inside, fields))
    thread.start()
    assert stream.begun.wait(30)
    yield stream
    thread.join(60)
