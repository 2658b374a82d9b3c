"""Framing of a stream, failures before and after its first chunk, and disconnects."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from millm.api import sse
from millm.api.app import install_error_handlers
from millm.api.sse import cancel_on_disconnect, stream_events
from millm.errors import EngineCrashed, QueueFull
from millm.protocol.response import ChatChunkChoice, CompletionResponse, DeltaMessage

closed: list[str] = []


def chunk(text: str) -> CompletionResponse:
    return CompletionResponse(
        id="chatcmpl-1",
        object="chat.completion.chunk",
        created=7,
        model="m",
        system_fingerprint="fp",
        choices=(ChatChunkChoice(index=0, delta=DeltaMessage(content=text)),),
    )


async def good() -> AsyncGenerator[CompletionResponse]:
    yield chunk("é\n\u2028")
    await asyncio.sleep(0.15)
    yield chunk("b")


async def refused() -> AsyncGenerator[CompletionResponse]:
    raise QueueFull("too many are waiting; try again in a moment")
    yield chunk("never")


async def crashing() -> AsyncGenerator[CompletionResponse]:
    yield chunk("a")
    raise EngineCrashed("the engine stopped; try again")


async def buggy() -> AsyncGenerator[CompletionResponse]:
    yield chunk("a")
    raise ZeroDivisionError("secret")


async def endless() -> AsyncGenerator[CompletionResponse]:
    try:
        while True:
            yield chunk("a")
            await asyncio.sleep(0.01)
    finally:
        closed.append("endless")


async def silent() -> AsyncGenerator[CompletionResponse]:
    try:
        await asyncio.sleep(60)
        yield chunk("a")
    finally:
        closed.append("silent")


STREAMS = {stream.__name__: stream for stream in (good, refused, crashing, buggy, endless, silent)}
app = FastAPI()
install_error_handlers(app)


@app.get("/{name}")
async def one(name: str, request: Request) -> Response:
    return await stream_events(request, STREAMS[name]())


@app.post("/work")
async def work(request: Request) -> int:
    await request.body()
    return await cancel_on_disconnect(request, _count())


async def _count() -> int:
    try:
        await asyncio.sleep(60)
    finally:
        closed.append("count")
    return 1


client = TestClient(app)


def test_stream_framing(monkeypatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.1)
    answer = client.get("/good")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    first, comment, second, done, rest = answer.content.split(b"\n\n")
    assert (comment[:1], done, rest) == (b":", b"data: [DONE]", b"")
    assert json.loads(first.removeprefix(b"data: "))["choices"][0]["delta"] == {"content": "é\n\u2028"}
    assert json.loads(second.removeprefix(b"data: ")) == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [{"index": 0, "delta": {"content": "b"}, "logprobs": None, "finish_reason": None}],
    }


def test_failure_before_first_chunk_is_an_ordinary_error() -> None:
    answer = client.get("/refused")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "queue_full"
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(("path", "code"), [("/crashing", "engine_crashed"), ("/buggy", "internal_error")])
def test_failure_after_first_chunk_is_an_event(path, code) -> None:
    with capture_logs() as logged:
        answer = client.get(path)
    _, failure, done, rest = answer.content.split(b"\n\n")
    assert (answer.status_code, done, rest) == (200, b"data: [DONE]", b"")
    error = json.loads(failure.removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("server_error", code)
    assert b"secret" not in answer.content
    assert [(line["event"], "exc_info" in line) for line in logged] == [
        ("stream.failed", path == "/buggy"),
        ("request.ended", False),
    ]


def call(method: str, path: str, *, leave: Callable[[list[dict[str, object]]], Awaitable[None]]) -> list[dict]:
    """The messages the application sent to a client that goes once `leave` returns."""
    sent: list[dict[str, object]] = []
    requested = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, object]:
        for message in requested:
            return message
        await leave(sent)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"spec_version": "2.3"}, "method": method, "path": path, "query_string": b"",
        "root_path": "", "headers": [],
    }  # fmt: skip

    async def within_a_second() -> None:
        async with asyncio.timeout(1):
            await app(scope, receive, send)

    asyncio.run(within_a_second())
    return sent


async def _at_once(_: list[dict[str, object]]) -> None:
    await asyncio.sleep(0.05)


async def _after_some_chunks(sent: list[dict[str, object]]) -> None:
    while len(sent) < 4:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "path", "leave", "name"),
    [
        ("GET", "/endless", _after_some_chunks, "endless"),
        ("GET", "/silent", _at_once, "silent"),
        ("POST", "/work", _at_once, "count"),
    ],
    ids=["in the middle of a stream", "before its first chunk", "while a whole answer is made"],
)
def test_disconnect_cancels_the_work(method, path, leave, name) -> None:
    closed.clear()
    with capture_logs() as logged:
        sent = call(method, path, leave=leave)
    assert closed == [name]
    assert sent[0]["status"] in (200, 499)
    assert [line["event"] for line in logged] == ["request.ended"]
