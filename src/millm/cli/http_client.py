"""HTTP client for a running server: JSON requests, and streamed answers as server-sent events."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import TypeVar

import httpx
import msgspec

from millm.auth import split_keys
from millm.errors import CannotStart, MillmError, ModelNotFound, ModelNotLoaded, Unavailable, error_from_code
from millm.settings import Settings

T = TypeVar("T")
POLL_SECONDS = 0.25
"""Seconds between two looks at a job or a change of the server."""
_CONNECT_SECONDS = 5.0
_UNLIMITED_CONNECTIONS = httpx.Limits()
"""`millm bench` reads many answers at once."""


class ChunkReceipt(msgspec.Struct, frozen=True):
    """The steering of an answer; `steering` is its fingerprint, None for the base model."""

    profile: str | None = None
    steering: str | None = None
    tokens_steered: int = 0
    delta_norm_ratio: float = 0.0


class ChunkDelta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    """Reasoning, on other servers that separate it from the answer."""

    @property
    def text(self) -> str:
        return self.content or self.reasoning_content or ""


class ChunkChoice(msgspec.Struct, frozen=True):
    delta: ChunkDelta = ChunkDelta()
    finish_reason: str | None = None


class ChunkUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int


class ServerErrorInfo(msgspec.Struct, frozen=True):
    message: str
    code: str | int | None = None
    """A number on some other servers."""

    def exception(self) -> MillmError:
        return error_from_code(str(self.code), self.message)


class AnswerChunk(msgspec.Struct, frozen=True):
    """One event of a streamed answer."""

    choices: tuple[ChunkChoice, ...] = ()
    usage: ChunkUsage | None = None
    millm: ChunkReceipt | None = None
    error: ServerErrorInfo | None = None


class ServedModelDetails(msgspec.Struct, frozen=True):
    """The `millm` field of an entry of `/v1/models`."""

    profile: str | None = None
    description: str = ""


class ServedModel(msgspec.Struct, frozen=True):
    """An entry of `/v1/models`: `id` is the `model` of a request."""

    id: str
    millm: ServedModelDetails = ServedModelDetails()


class _ServedModelList(msgspec.Struct, frozen=True):
    data: tuple[ServedModel, ...]


class _ErrorBody(msgspec.Struct, frozen=True):
    error: ServerErrorInfo


def parse_sse_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The data of server-sent events of one line each, up to `[DONE]`; comments are skipped.

    Splits at line feeds only: a text may hold U+2028, at which `iter_lines` would cut it in two.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip() == b"data: [DONE]":
                return
            if line.startswith(b"data:"):
                yield line[5:].strip()


def decode_chunk(event: bytes) -> AnswerChunk:
    """Raises the error that the event holds, or Unavailable if the event is no chunk of an answer."""
    try:
        chunk = msgspec.json.decode(event, type=AnswerChunk)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the server sent something that is no part of an answer ({error})") from error
    if chunk.error:
        raise chunk.error.exception()
    return chunk


class RemoteServer:
    def __init__(self, url: str, *, key: str | None = None, read_timeout: float | None = None) -> None:
        """`url`: with or without `http://` and `/v1`. Raises CannotStart for an invalid address.

        `key`: the server's API key, if it has one.
        `read_timeout`: seconds to wait for the next bytes; None waits without limit.
        """
        self.url = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
        try:
            is_local = httpx.URL(self.url).host in ("127.0.0.1", "localhost", "::1")
            self._http = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=httpx.Timeout(read_timeout, connect=_CONNECT_SECONDS),
                limits=_UNLIMITED_CONNECTIONS,
                trust_env=not is_local,  # no proxy for this machine
            )
        except httpx.InvalidURL as error:
            raise CannotStart(f"--url {url!r} is not an address such as http://127.0.0.1:8000") from error

    def request(
        self, method: str, path: str, returns: type[T], body: object = None, *, document: bytes | None = None
    ) -> T:
        """Send `body` as JSON, or `document` as it is, and decode the JSON answer.

        Raises the server's error, or CannotStart when no server answers.
        """
        response = self._send(method, path, body, document)
        try:
            return msgspec.json.decode(response.content, type=returns)
        except msgspec.DecodeError as error:
            raise self._unknown_server_error(response) from error

    def get_file(self, path: str) -> bytes:
        """Raises as `request` does."""
        return self._send("GET", path).content

    def _send(self, method: str, path: str, body: object = None, document: bytes | None = None) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body, content=document)
        except (httpx.ConnectError, httpx.TimeoutException) as error:
            raise self._unreachable_error() from error
        except httpx.TransportError as error:
            raise self._connection_error(error) from error
        if response.is_error:
            raise self._server_error(response)
        return response

    def is_running(self) -> bool:
        """Whether a miLLM server answers."""
        try:
            return self._http.get("/healthz", timeout=_CONNECT_SECONDS).text == '{"status":"ok"}'
        except httpx.TransportError:
            return False

    def served_models(self) -> tuple[ServedModel, ...]:
        """Raises CannotStart when no server answers."""
        return self.request("GET", "/v1/models", _ServedModelList).data

    def choose_model(self, requested: str | None) -> str:
        """`requested`, or the first model listed. Raises ModelNotLoaded or ModelNotFound, or as `served_models`."""
        known = [entry.id for entry in self.served_models()]
        if not known:
            raise ModelNotLoaded(f"the server at {self.url} is still loading its model; try again in a moment")
        if requested is not None and requested not in known:
            raise ModelNotFound(f"there is no model {requested!r}; there are: {', '.join(known)}")
        return requested or known[0]

    def stream_chat(self, body: dict[str, object]) -> Generator[AnswerChunk]:
        """A chat completion, chunk by chunk; closing the generator cancels it. Raises MillmError."""
        with closing(self.stream_events("/v1/chat/completions", {**body, "stream": True})) as events:
            for event in events:
                yield decode_chunk(event)

    def stream_events(self, path: str, body: dict[str, object]) -> Generator[bytes]:
        """The data of each event; closing the generator cancels the request. Raises MillmError."""
        try:
            with self._http.stream("POST", path, json=body) as response:
                if response.is_error:
                    response.read()
                    raise self._server_error(response)
                yield from parse_sse_data(response.iter_bytes())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable_error() from error
        except httpx.TransportError as error:
            raise self._connection_error(error) from error

    def _unreachable_error(self) -> CannotStart:
        return CannotStart(
            f"no miLLM server answers at {self.url}; start one with `millm demo` or `millm serve MODEL`,"
            " or say where it is with --url"
        )

    def _connection_error(self, error: httpx.TransportError) -> Unavailable:
        return Unavailable(f"the connection to {self.url} broke off ({type(error).__name__})")

    def _server_error(self, response: httpx.Response) -> MillmError:
        try:
            return msgspec.json.decode(response.content, type=_ErrorBody).error.exception()
        except msgspec.DecodeError:
            return self._unknown_server_error(response)

    def _unknown_server_error(self, response: httpx.Response) -> MillmError:
        return CannotStart(
            f"what answers at {self.url} is not a miLLM server, nor another with OpenAI's API"
            f" (status {response.status_code})"
        )


def local_api_key() -> str | None:
    """The first key of the settings: a server with the same settings accepts it."""
    return next(iter(split_keys(Settings.load().api_key)), None)


def connect(url: str | None, api_key: str | None) -> RemoteServer:
    """The server at `url`, or at the port of the settings."""
    return RemoteServer(url or f"http://127.0.0.1:{Settings.load().port}", key=api_key or local_api_key())


def connect_if_running(url: str | None, api_key: str | None) -> RemoteServer | None:
    """The server at `url` if given, else the usual one if it answers; None means that the command uses this disk."""
    remote = connect(url, api_key)
    return remote if url or remote.is_running() else None
