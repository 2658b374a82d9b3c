"""A client that checks every response against the OpenAPI document and for leaked secrets."""

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import jsonschema_rs
from websockets.sync.client import ClientConnection, connect

TOKEN = "hf_right"
"""The server's HF_TOKEN, which the fake hub knows."""
MODEL, SPARE, SAE, OTHER_SAE = "tiny-llama", "spare", "tiny", "other"
"""What the library has from the start, imported."""

Result = TypeVar("Result")


class LibraryClient:
    def __init__(self, url: str, folders: tuple[Path, ...]) -> None:
        self.url = url
        self.folders = folders
        """Whose paths no answer may hold."""
        self.http = httpx.Client(base_url=url, timeout=60)
        self._document = self.http.get("/openapi.json").json()
        self._operations = [
            (re.compile(f"{method.upper()} {re.sub('{[^}]+}', '(.+)', address)}"), operation)
            for address, methods in self._document["paths"].items()
            for method, operation in methods.items()
        ]

    def ask(self, method: str, address: str, body: Any = None, **how: Any) -> httpx.Response:
        """Send a request and check the response."""
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.http.request(method, address, content=content, **how)
        self._check_leaks(answer)
        if answer.status_code < 300 and answer.request.url.path.startswith("/api"):
            self._check_described(answer)
        return answer

    def get(self, address: str, **how: Any) -> Any:
        return self._good(self.ask("GET", address, **how))

    def post(self, address: str, body: Any = None) -> Any:
        return self._good(self.ask("POST", address, body))

    def delete(self, address: str) -> Any:
        return self._good(self.ask("DELETE", address))

    def refused(self, method: str, address: str, body: Any = None, **how: Any) -> tuple[int, str]:
        """(status, code) of an error response."""
        answer = self.ask(method, address, body, **how)
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert "\n" not in error["message"]
        return answer.status_code, error["code"]

    def loaded(self, model: str = MODEL) -> Any:
        """Load the model without SAEs; returns the status."""
        status = self.post("/api/models/load", {"id": model})
        for sae in status["saes"]:
            status = self.delete(f"/api/attachments/{sae['sae']}")
        return status

    def asleep_until(self, there: Callable[[], Result | None], seconds: float = 30) -> Result:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := there():
                return found
            time.sleep(0.05)
        raise AssertionError("it did not happen")

    def downloaded(self, kind: str, id: str) -> Any:
        """The finished download job."""
        job = self.post(f"/api/{kind}", {"id": id})
        ended = ("installed", "failed", "cancelled", "interrupted")
        job = self.asleep_until(lambda: (j := self.get(f"/api/jobs/{job['id']}"))["state"] in ended and j)
        assert job["state"] == "installed", job
        return job

    @contextmanager
    def listening(self) -> Iterator["Ear"]:
        with connect(f"{self.url.replace('http', 'ws')}/api/events", max_size=None) as socket:
            ear = Ear(socket)
            assert ear.next()["type"] == "hello"
            yield ear

    def at_once(self, *calls: Callable[[], Result]) -> list[Result]:
        with ThreadPoolExecutor(len(calls)) as threads:
            return [each.result() for each in [threads.submit(call) for call in calls]]

    def _good(self, answer: httpx.Response) -> Any:
        assert answer.status_code < 300, answer.text
        return answer.json()

    def _check_leaks(self, answer: httpx.Response) -> None:
        told = answer.text + str(answer.headers)
        for secret in (TOKEN, "Traceback", *map(str, self.folders)):
            assert secret not in told, f"{answer.request.url} tells {secret}"

    def _check_described(self, answer: httpx.Response) -> None:
        asked = f"{answer.request.method} {answer.request.url.path}"
        operation = next(operation for address, operation in self._operations if address.fullmatch(asked))
        schema = operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.validator_for({**schema, "components": self._document["components"]})
        validator.validate(answer.json())


class Ear:
    """Yields single events of the frames."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._rest: deque[dict[str, Any]] = deque()

    def next(self, seconds: float = 30) -> dict[str, Any]:
        while not self._rest:
            self._rest.extend(json.loads(self._socket.recv(seconds)))
        return self._rest.popleft()


def events_until(ear: Ear, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The events up to the first for which `last` is true."""
    heard = [ear.next()]
    while not last(heard[-1]):
        heard.append(ear.next())
    return heard
