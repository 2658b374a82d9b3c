"""`/api/events` with a real websocket client: events, filters, and misbehaving clients."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import millm
from millm.api.admin import events as websocket
from millm.api.h11_protocol import MAX_WEBSOCKET_MESSAGE_BYTES
from millm.events import MAX_SUBSCRIPTIONS, SteeringChanged
from tests.fixtures.inside import Inside, serving

WATCH = {"features": [3, 11], "top_k": 2, "sample_every": 1, "tokens": "all"}
TEXTS = ["The sea is wide.", "one two"]


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_sae: Path) -> Iterator[Inside]:
    with serving(tiny_model, tiny_sae, tmp_path_factory.mktemp("home")) as inside:
        yield inside


@contextmanager
def listening(inside: Inside, *said: Any) -> Iterator["Told"]:
    """A connection after the hello event and the messages `said`."""
    with connect(f"{inside.url.replace('http', 'ws')}/api/events", max_size=None) as socket:
        client = Told(socket)
        assert told(client) == {"type": "hello", "version": millm.__version__, "status": "ready"}
        for message in said:
            client.send(json.dumps(message))
            until_read(inside)
        yield client


class Told:
    """Single events of the frames."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.send = socket.send
        self._came: list[dict[str, Any]] = []
        self.frames = 0

    def recv(self, timeout: float) -> dict[str, Any]:
        if not self._came:
            self._came = json.loads(self.socket.recv(timeout))
            self.frames += 1
        return self._came.pop(0)


def until_read(inside: Inside) -> None:
    """Returns after the server has read the messages."""
    for _ in range(3):
        assert httpx.get(f"{inside.url}/healthz").status_code == 200


def told(client: Told, timeout: float = 10.0, but: str = "request") -> dict[str, Any]:
    """The next event of another type."""
    while (event := client.recv(timeout))["type"] == but:
        pass
    return event


def silent(client: Told) -> bool:
    with pytest.raises(TimeoutError):
        told(client, 0.2)
    return True


def embed(inside: Inside, **watch: Any) -> list[dict[str, Any]]:
    body = {"model": "tiny-llama", "input": TEXTS, "activations": {**WATCH, **watch}}
    return httpx.post(f"{inside.base_url}/embeddings", json=body, timeout=30).json()["millm"]["activations"]


# -------------------------------------------------------------------------------------------------------- what comes


def test_watched_embeddings_are_published(inside: Inside) -> None:
    with listening(inside) as client:
        shown = embed(inside)
        heard = [told(client) for _ in shown]
    assert {(event["type"], event["endpoint"]) for event in heard} == {("activations", "/v1/embeddings")}
    assert len({event["request_id"] for event in heard}) == 1
    assert {tuple(event["features"]) for event in heard} == {(3, 11)}
    mine = [{"input": event["index"], **{key: event[key] for key in shown[0] if key != "input"}} for event in heard]
    assert mine == shown


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_watched_answers_are_published(inside: Inside, path: str, stream: bool) -> None:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "tiny-llama", "n": 2, "max_tokens": 4, "stream": stream, "activations": WATCH}
    body |= {"messages": messages} if "chat" in path else {"prompt": "hi"}
    with listening(inside) as client:
        answer = httpx.post(f"{inside.base_url}{path}", json=body, timeout=30)
        if stream:
            parts = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        else:
            parts = [answer.json()]
        shown = [entry for part in parts for entry in part.get("millm", {}).get("activations", ())]
        heard = [told(client) for _ in shown]
    assert {(event["endpoint"], event["request_id"]) for event in heard} == {(f"/v1{path}", parts[0]["id"])}
    key = ("choice", "position")
    mine = [
        {"choice": event["index"], **{name: event[name] for name in shown[0] if name != "choice"}} for event in heard
    ]
    assert sorted(mine, key=lambda e: [e[k] for k in key]) == sorted(shown, key=lambda e: [e[k] for k in key])
    assert {event["index"] for event in heard} == {0, 1}


def test_unwatched_requests_publish_no_activations(inside: Inside) -> None:
    with listening(inside) as client:
        httpx.post(f"{inside.base_url}/embeddings", json={"model": "tiny-llama", "input": "a"})
        assert silent(client)


def test_steering_changes_are_published(inside: Inside) -> None:
    with listening(inside) as client:
        put = httpx.put(f"{inside.url}/api/steering", json={"profile": "push"}).json()
        httpx.put(f"{inside.url}/api/steering", content=b"null")
        version = put["version"]
        assert told(client) == {
            "type": "steering", "version": version, "profile": "push", "fingerprint": put["fingerprint"],
        }  # fmt: skip
        assert told(client) == {"type": "steering", "version": version + 1, "profile": None, "fingerprint": None}


def test_degradation_is_published(inside: Inside) -> None:
    attached = inside.state.saes
    with listening(inside) as client:
        try:
            inside.call(inside.state.drop_saes)
            assert told(client) == {
                "type": "status", "status": "ready", "model": "tiny-llama", "saes": [], "degraded": None, "cause": None,
            }  # fmt: skip
        finally:
            inside.state.saes = attached


# ------------------------------------------------------------------------------------------------------ what is said


def test_filter_selects_features(inside: Inside) -> None:
    with listening(inside, {"type": "watch", "sae": "tiny", "features": [11]}) as client:
        shown = embed(inside, top_k=0, sample_every=None)
        heard = [told(client) for _ in shown]
        assert [(event["features"], event["values"]) for event in heard] == [
            ([11], entry["values"][1:]) for entry in shown
        ]
        client.send(json.dumps({"type": "watch", "features": [95]}))
        until_read(inside)
        embed(inside, top_k=0, sample_every=None)
        assert silent(client)
        client.send(json.dumps({"type": "watch"}))
        until_read(inside)
        embed(inside, top_k=0, sample_every=None)
        assert told(client)["features"] == [3, 11]


@pytest.mark.parametrize(
    "said",
    [
        "hello", "[]", "{}", '{"type": "steer"}', '{"type": "watch", "features": "all"}', b"\x00",
        '{"type": "watch", "features": [-1]}', '{"type": "watch", "sae": 3}', '{"type": "watch", "more": 1}',
        json.dumps({"type": "watch", "features": list(range(1025))}),
    ],
)  # fmt: skip
def test_invalid_messages_close_the_connection(inside: Inside, said: str | bytes) -> None:
    with listening(inside) as client:
        client.send(said)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert "watch" in closed.value.rcvd.reason
    assert len(inside.state.events) == 0


def test_large_inbound_frame_is_rejected(inside: Inside) -> None:
    with listening(inside) as client:
        client.send("x" * (MAX_WEBSOCKET_MESSAGE_BYTES + 1))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


# ---------------------------------------------------------------------------------------------- many, slow and gone


def test_number_of_connections_is_limited(inside: Inside) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(listening(inside)) for _ in range(MAX_SUBSCRIPTIONS)]
        with pytest.raises(InvalidStatus) as refused, listening(inside):
            pass
        assert refused.value.response.status_code == 503
        assert json.loads(refused.value.response.body)["error"]["code"] == "unavailable"
        inside.call(inside.state.events.publish, SteeringChanged(version=1, profile="x", fingerprint=None))
        assert {told(client)["profile"] for client in clients} == {"x"}
    until_nobody_listens(inside)
    with listening(inside):
        pass


def until_nobody_listens(inside: Inside, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while len(inside.state.events):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_client_that_never_reads_is_disconnected(inside: Inside, monkeypatch) -> None:
    """Sends more than all buffers hold; its mailbox is tested in tests/test_events.py."""
    monkeypatch.setattr(websocket, "SEND_SECONDS", 0.5)
    huge = SteeringChanged(version=1, profile="x" * 50_000, fingerprint=None)
    with bare_socket(inside), listening(inside) as reader:
        for _ in range(64):
            inside.call(inside.state.events.publish, huge)
            assert told(reader)["type"] == "steering"
        until_one_listens(inside)
        assert httpx.get(f"{inside.url}/healthz").status_code == 200
    until_nobody_listens(inside)


def until_one_listens(inside: Inside) -> None:
    deadline = time.monotonic() + 5
    while len(inside.state.events) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def bare_socket(inside: Inside) -> Iterator[socket.socket]:
    """A handshake without any read after it."""
    host, port = inside.url.removeprefix("http://").split(":")
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect((host, int(port)))
        peer.sendall(
            f"GET /api/events HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        deadline = time.monotonic() + 5
        while not len(inside.state.events):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield peer


def test_abrupt_disconnect(inside: Inside) -> None:
    with bare_socket(inside):
        pass
    until_nobody_listens(inside)
