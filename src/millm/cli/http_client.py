"""A running server, over HTTP: what can be asked for, and an answer as it comes. Knows no terminal.

A streamed answer as it comes over HTTP: server-sent events, and what is in each. Knows no connection.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import httpx
import msgspec

from millm.auth import split_keys
from millm.errors import CannotStart, MillmError, ModelNotFound, ModelNotLoaded, Unavailable, error_from_code
from millm.settings import Settings


class ChunkReceipt(msgspec.Struct, frozen=True):
    """The steering that an answer got; `steering` is its fingerprint, None for the base model."""

    profile: str | None = None
    steering: str | None = None
    tokens_steered: int = 0
    delta_norm_ratio: float = 0.0


class ChunkDelta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    """Where another server tells thinking apart."""

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


class AnswerChunk(msgspec.Struct, frozen=True):
    """One event of a streamed answer."""

    choices: tuple[ChunkChoice, ...] = ()
    usage: ChunkUsage | None = None
    millm: ChunkReceipt | None = None
    error: ServerErrorInfo | None = None


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
    try:
        chunk = msgspec.json.decode(event, type=AnswerChunk)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the server sent something that is no part of an answer ({error})") from error
    if chunk.error:
        raise error_from_code(str(chunk.error.code), chunk.error.message)
    return chunk


T = TypeVar("T")
_CONNECT_SECONDS = 5.0
"""Seconds."""
_UNLIMITED_CONNECTIONS = httpx.Limits()
"""Connections: `millm bench` reads many answers at once."""


class ServedModelDetails(msgspec.Struct, frozen=True):
    """miLLM's own part of an entry."""

    profile: str | None = None
    description: str = ""


class ServedModel(msgspec.Struct, frozen=True):
    """What can be asked for as `model`."""

    id: str
    millm: ServedModelDetails = ServedModelDetails()


class _ServedModelList(msgspec.Struct, frozen=True):
    data: tuple[ServedModel, ...]


class _ErrorBody(msgspec.Struct, frozen=True):
    error: ServerErrorInfo


def local_url() -> str:
    """Where `millm serve` listens unless it is told otherwise."""
    return f"http://127.0.0.1:{Settings.load().port}"


def local_api_key() -> str | None:
    """What a server with these settings asks for: the first, where there are several."""
    return next(iter(split_keys(Settings.load().api_key)), None)


class RemoteServer:
    def __init__(self, url: str, *, key: str | None = None, read_timeout: float | None = None) -> None:
        """`url`: where the server is, with or without `http://` and `/v1`. Raises CannotStart when it is no address.

        `key`: what it asks for, if it asks for one.
        `patience`: seconds to wait for its next word; None waits until somebody presses Ctrl+C.
        """
        self.url = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
        try:
            is_here = httpx.URL(self.url).host in ("127.0.0.1", "localhost", "::1")
            self._http = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=httpx.Timeout(read_timeout, connect=_CONNECT_SECONDS),
                limits=_UNLIMITED_CONNECTIONS,
                trust_env=not is_here,  # there: by no proxy
            )
        except httpx.InvalidURL as error:
            raise CannotStart(f"--url {url!r} is not an address such as http://127.0.0.1:8000") from error

    def request(self, method: str, path: str, returns: type[T], body: object = None) -> T:
        """A question and its answer in JSON. Raises what the server said, or CannotStart when none answers there."""
        return self._decode(self._request(method, path, json=body), returns)

    def post_document(self, path: str, document: bytes, returns: type[T]) -> T:
        """A document of any kind, posted as it is. Raises as `ask` does."""
        return self._decode(self._request("POST", path, content=document), returns)

    def get_file(self, path: str) -> bytes:
        """A file. Raises as `ask` does."""
        return self._request("GET", path).content

    def _decode(self, response: httpx.Response, returns: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=returns)
        except msgspec.DecodeError as error:
            raise self._unknown_server_error(response) from error

    def _request(self, method: str, path: str, **body: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **body)
        except (httpx.ConnectError, httpx.TimeoutException) as error:
            raise self._unreachable_error() from error
        except httpx.TransportError as error:
            raise self._connection_error(error) from error
        if answer.is_error:
            raise self._server_error(answer)
        return answer

    def is_running(self) -> bool:
        """A miLLM server answers."""
        try:
            return self._http.get("/healthz", timeout=_CONNECT_SECONDS).text == '{"status":"ok"}'
        except httpx.TransportError:
            return False

    def served_models(self) -> tuple[ServedModel, ...]:
        """Raises CannotStart when no server answers there."""
        return self.request("GET", "/v1/models", _ServedModelList).data

    def choose_model(self, requested: str | None) -> str:
        """The model asked for, or the one it has. Raises ModelNotLoaded or ModelNotFound, or as `entries` does."""
        known = [entry.id for entry in self.served_models()]
        if not known:
            raise ModelNotLoaded(f"the server at {self.url} is still loading its model; try again in a moment")
        if requested is not None and requested not in known:
            raise ModelNotFound(f"there is no model {requested!r}; there are: {', '.join(known)}")
        return requested or known[0]

    def stream_chat(self, body: dict[str, object]) -> Generator[AnswerChunk]:
        """A chat completion as it comes; closing the iterator cancels it. Raises MillmError."""
        with closing(self.stream_events("/v1/chat/completions", {**body, "stream": True})) as told:
            for event in told:
                yield decode_chunk(event)

    def stream_events(self, path: str, body: dict[str, object]) -> Generator[bytes]:
        """The data of an answer's events as they come; closing the iterator cancels it. Raises MillmError."""
        try:
            with self._http.stream("POST", path, json=body) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._server_error(answer)
                yield from parse_sse_data(answer.iter_bytes())
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
            told = msgspec.json.decode(response.content, type=_ErrorBody).error
        except msgspec.DecodeError:
            return self._unknown_server_error(response)
        return error_from_code(str(told.code), told.message)

    def _unknown_server_error(self, response: httpx.Response) -> MillmError:
        return CannotStart(
            f"what answers at {self.url} is not a miLLM server, nor another with OpenAI's API"
            f" (status {response.status_code})"
        )


def connect(url: str | None, api_key: str | None) -> RemoteServer:
    """The server at `url`, or where one with these settings listens."""
    return RemoteServer(url or local_url(), key=api_key or local_api_key())
