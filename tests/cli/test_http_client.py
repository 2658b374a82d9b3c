"""Server-sent events in any chunks, and servers that break off or send malformed events."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.cli.http_client import RemoteServer, parse_sse_data
from millm.errors import CannotStart, EngineCrashed, MillmError, Unavailable


def stream_of(texts: list[str]) -> bytes:
    """Events with comments between, and line ends of either kind."""
    events = [f"data: {json.dumps({'text': text}, ensure_ascii=False)}\n\n: working\r\n\r\n" for text in texts]
    return "".join([*events, "data: [DONE]\n\n", 'data: {"text": "too late"}\n\n']).encode()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.data())
def test_events_do_not_depend_on_chunk_boundaries(texts: list[str], data: st.DataObject) -> None:
    """Also with U+2028 and similar, at which a line reader would split."""
    stream = stream_of(texts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    chunks = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert [json.loads(event)["text"] for event in parse_sse_data(chunks)] == texts


FIRST_EVENT = b'data: {"choices": [{"delta": {"content": "The "}}]}\n\n'


@contextmanager
def answering(body: bytes, *, missing: int = 0) -> Iterator[RemoteServer]:
    """A server that answers every request with `body`; its Content-Length is larger by `missing`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + missing))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """No log."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield RemoteServer(f"127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()


def read_stream(remote: RemoteServer) -> tuple[str, MillmError | None]:
    """The text up to the end of the stream, and the error that ended it."""
    text = ""
    try:
        for chunk in remote.stream_chat({}):
            text += chunk.choices[0].delta.content or ""
    except MillmError as error:
        return text, error
    return text, None


def test_a_complete_answer() -> None:
    with answering(FIRST_EVENT + FIRST_EVENT + b"data: [DONE]\n\n") as remote:
        assert read_stream(remote) == ("The The ", None)


def test_an_error_event_after_the_first_words() -> None:
    event = (
        b'data: {"error": {"message": "the engine stopped", "type": "x", "param": null, "code": "engine_crashed"}}\n\n'
    )
    with answering(FIRST_EVENT + event) as remote:
        text, error = read_stream(remote)
    assert (text, type(error), str(error)) == ("The ", EngineCrashed, "the engine stopped")


def test_a_broken_connection() -> None:
    with answering(FIRST_EVENT, missing=1) as remote:
        text, error = read_stream(remote)
    assert (text, type(error)) == ("The ", Unavailable)
    assert f"the connection to {remote.url} broke off" in str(error)


@pytest.mark.parametrize("malformed", [b"data: {\n\n", b'data: {"choices": 3}\n\n'])
def test_malformed_events(malformed: bytes) -> None:
    with answering(FIRST_EVENT + malformed) as remote:
        text, error = read_stream(remote)
    assert (text, type(error)) == ("The ", Unavailable)
    assert "no part of an answer" in str(error)


def test_a_silent_server_times_out() -> None:
    released = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            released.wait(30)

    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with pytest.raises(CannotStart, match="no miLLM server answers"):
            RemoteServer(f"127.0.0.1:{server.server_port}", read_timeout=0.2).served_models()
        released.set()
        server.shutdown()


@pytest.mark.parametrize("url", ["http://host:port", "http://\x00"])
def test_invalid_addresses_are_rejected(url: str) -> None:
    with pytest.raises(CannotStart, match="is not an address such as"):
        RemoteServer(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "127.0.0.1:8000", "http://127.0.0.1:8000/v1/"])
def test_addresses(url: str) -> None:
    assert RemoteServer(url).url == "http://127.0.0.1:8000"
