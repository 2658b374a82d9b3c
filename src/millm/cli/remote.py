"""A running server, over HTTP: what can be asked for, and an answer as it comes. Knows no terminal."""

from collections.abc import Generator
from contextlib import closing
from typing import Any, TypeVar

import httpx
import msgspec

from millm.cli.chunks import Chunk, Refusal, chunk_of, events
from millm.errors import CannotStart, MillmError, ModelNotFound, ModelNotLoaded, Unavailable, from_code
from millm.principal import keys_of
from millm.settings import Settings

Told = TypeVar("Told")

_TO_CONNECT = 5.0
"""Seconds."""
_AS_MANY_AS_ASKED = httpx.Limits()
"""Connections: `millm bench` reads many answers at once."""


class Menu(msgspec.Struct, frozen=True):
    """miLLM's own part of an entry."""

    profile: str | None = None
    description: str = ""


class Entry(msgspec.Struct, frozen=True):
    """What can be asked for as `model`."""

    id: str
    millm: Menu = Menu()


class _Menus(msgspec.Struct, frozen=True):
    data: tuple[Entry, ...]


class _Refused(msgspec.Struct, frozen=True):
    error: Refusal


def local_url() -> str:
    """Where `millm serve` listens unless it is told otherwise."""
    return f"http://127.0.0.1:{Settings.load().port}"


def local_key() -> str | None:
    """What a server with these settings asks for: the first, where there are several."""
    return next(iter(keys_of(Settings.load().api_key)), None)


class Remote:
    def __init__(self, url: str, *, key: str | None = None, patience: float | None = None) -> None:
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
                timeout=httpx.Timeout(patience, connect=_TO_CONNECT),
                limits=_AS_MANY_AS_ASKED,
                trust_env=not is_here,  # there: by no proxy
            )
        except httpx.InvalidURL as error:
            raise CannotStart(f"--url {url!r} is not an address such as http://127.0.0.1:8000") from error

    def ask(self, method: str, path: str, returns: type[Told], body: object = None) -> Told:
        """A question and its answer in JSON. Raises what the server said, or CannotStart when none answers there."""
        return self._decoded(self._answer(method, path, json=body), returns)

    def send(self, path: str, document: bytes, returns: type[Told]) -> Told:
        """A document of any kind, posted as it is. Raises as `ask` does."""
        return self._decoded(self._answer("POST", path, content=document), returns)

    def fetch(self, path: str) -> bytes:
        """A file. Raises as `ask` does."""
        return self._answer("GET", path).content

    def _decoded(self, answer: httpx.Response, returns: type[Told]) -> Told:
        try:
            return msgspec.json.decode(answer.content, type=returns)
        except msgspec.DecodeError as error:
            raise self._stranger(answer) from error

    def _answer(self, method: str, path: str, **body: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **body)
        except (httpx.ConnectError, httpx.TimeoutException) as error:
            raise self._absent() from error
        except httpx.TransportError as error:
            raise self._broken(error) from error
        if answer.is_error:
            raise self._refusal(answer)
        return answer

    def is_there(self) -> bool:
        """A miLLM server answers."""
        try:
            return self._http.get("/healthz", timeout=_TO_CONNECT).text == '{"status":"ok"}'
        except httpx.TransportError:
            return False

    def entries(self) -> tuple[Entry, ...]:
        """Raises CannotStart when no server answers there."""
        return self.ask("GET", "/v1/models", _Menus).data

    def choose(self, asked: str | None) -> str:
        """The model asked for, or the one it has. Raises ModelNotLoaded or ModelNotFound, or as `entries` does."""
        known = [entry.id for entry in self.entries()]
        if not known:
            raise ModelNotLoaded(f"the server at {self.url} is still loading its model; try again in a moment")
        if asked is not None and asked not in known:
            raise ModelNotFound(f"there is no model {asked!r}; there are: {', '.join(known)}")
        return asked or known[0]

    def stream(self, body: dict[str, object]) -> Generator[Chunk]:
        """A chat completion as it comes; closing the iterator cancels it. Raises MillmError."""
        with closing(self.events("/v1/chat/completions", {**body, "stream": True})) as told:
            for event in told:
                yield chunk_of(event)

    def events(self, path: str, body: dict[str, object]) -> Generator[bytes]:
        """The data of an answer's events as they come; closing the iterator cancels it. Raises MillmError."""
        try:
            with self._http.stream("POST", path, json=body) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._refusal(answer)
                yield from events(answer.iter_bytes())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._absent() from error
        except httpx.TransportError as error:
            raise self._broken(error) from error

    def _absent(self) -> CannotStart:
        return CannotStart(
            f"no miLLM server answers at {self.url}; start one with `millm demo` or `millm serve MODEL`,"
            " or say where it is with --url"
        )

    def _broken(self, error: httpx.TransportError) -> Unavailable:
        return Unavailable(f"the connection to {self.url} broke off ({type(error).__name__})")

    def _refusal(self, answer: httpx.Response) -> MillmError:
        try:
            told = msgspec.json.decode(answer.content, type=_Refused).error
        except msgspec.DecodeError:
            return self._stranger(answer)
        return from_code(str(told.code), told.message)

    def _stranger(self, answer: httpx.Response) -> MillmError:
        return CannotStart(
            f"what answers at {self.url} is not a miLLM server, nor another with OpenAI's API"
            f" (status {answer.status_code})"
        )


def connect(url: str | None, api_key: str | None) -> Remote:
    """The server at `url`, or where one with these settings listens."""
    return Remote(url or local_url(), key=api_key or local_key())
