"""huggingface_hub's HTTP session and errors: visible retries, and exceptions mapped to MillmErrors with a remedy.

huggingface_hub waits without notice while the hub is busy, and restarts a file after a TCP reset, although it resumes
after an early close: `patch_session` changes both. Its error texts are never shown, since they hold addresses and
paths. Version 1 uses `httpx`, version 2 `httpx2`: one library under two names.
"""

import errno
import importlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from huggingface_hub import constants, get_session
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from millm.errors import DownloadFailed, GatedRepository, InsufficientDisk, InvalidToken, MillmError, RepositoryNotFound
from millm.hub.jobs import DownloadSpec, Problem

_http = importlib.import_module(type(get_session()).__module__.partition(".")[0])
TransportError: type[Exception] = _http.TransportError
"""No connection, a lost one, or a timeout."""
_BUSY_STATUSES = {408, 425, 429, 500, 502, 503, 504}


class HubBusy(Exception):
    """A status that permits another try later."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after
        """Seconds."""


class _ResumableStream(_http.SyncByteStream):  # type: ignore[misc,name-defined]  # one of two modules
    """A body that turns a reset into an early close, after which huggingface_hub requests the rest."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except _http.ReadError as error:
            raise _http.RemoteProtocolError("reset") from error

    def close(self) -> None:
        self._stream.close()


def patch_session() -> None:
    """Make requests raise HubBusy; called before each request, since huggingface_hub may have created a new session."""
    session = get_session()
    hooks = session.event_hooks
    if _on_response not in hooks["response"]:
        session.event_hooks = {**hooks, "response": [*hooks["response"], _on_response]}


def _on_response(response: Any) -> None:
    if response.status_code in _BUSY_STATUSES:
        seconds = response.headers.get("retry-after", "")  # a date in other services, not in Hugging Face
        raise HubBusy(response.status_code, float(seconds) if seconds.isdecimal() else None)
    response.stream = _ResumableStream(response.stream)


HUB_ERRORS = (MillmError, HfHubHTTPError, HFValidationError, FileMetadataError, HubBusy, TransportError, OSError)
"""The exceptions of a request to the hub (`OSError` covers `LocalEntryNotFoundError`)."""


def repository_url(spec: DownloadSpec) -> str:
    return f"{constants.ENDPOINT}/{spec.repository}"


def problem_from_error(error: BaseException, spec: DownloadSpec) -> Problem:
    mapped, link = _to_millm_error(_root_cause(error), spec)
    return Problem(code=mapped.code, message=mapped.message, link=link)


def search_problem_from_error(error: BaseException) -> Problem:
    """For a search, which names no repository."""
    match error:
        case OfflineModeIsEnabled():
            mapped: MillmError = DownloadFailed(
                "HF_HUB_OFFLINE forbids to search Hugging Face; unset it, or give a model's whole id"
            )
        case HfHubHTTPError(response=object(status_code=401)) if _sent_token(error):
            mapped = InvalidToken("Hugging Face does not accept this HF_TOKEN; make a new one, or unset it")
        case _:
            mapped = DownloadFailed(
                f"{constants.ENDPOINT} could not be searched ({_error_label(error)}); check the network and"
                " HF_ENDPOINT, and try again"
            )
    return Problem(code=mapped.code, message=mapped.message)


def is_transient(error: BaseException) -> bool:
    """True where another try may help."""
    match _root_cause(error):
        case HubBusy() | TransportError() | FileMetadataError() | LocalEntryNotFoundError():
            return True
        case OSError(errno=int() as code):
            return code in (errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE)
    return False


def is_offline(error: BaseException) -> bool:
    """True where no request was allowed, or none was answered."""
    return is_transient(error) or isinstance(_root_cause(error), OfflineModeIsEnabled)


def is_wrong_length(error: OSError) -> bool:
    """huggingface_hub's check of the received length, which has no exception class of its own."""
    return type(error) is OSError and error.errno is None


def _to_millm_error(error: BaseException, spec: DownloadSpec) -> tuple[MillmError, str | None]:
    name, link = spec.repository, repository_url(spec)
    match error:
        case MillmError():
            return error, link
        case GatedRepoError() if _sent_token(error):
            return GatedRepository(
                f"{name}: the account of this HF_TOKEN has no access; accept its licence on its page, {link}, or wait"
                " until that is granted"
            ), link
        case GatedRepoError():
            return GatedRepository(
                f"{name}: gated; accept its licence on its page, {link}, and set HF_TOKEN to your token"
            ), link
        case HfHubHTTPError(response=object(status_code=401)) if _sent_token(error):
            return InvalidToken(
                f"{name}: Hugging Face does not accept this HF_TOKEN; make a new one, or unset it for a public"
                " repository"
            ), f"{constants.ENDPOINT}/settings/tokens"
        case RevisionNotFoundError():
            return RepositoryNotFound(f"{name} has no revision {spec.revision!r}; see its branches at {link}"), link
        case RepositoryNotFoundError() | HFValidationError() | HfHubHTTPError(response=object(status_code=401)):
            return RepositoryNotFound(
                f"{name}: no such repository on Hugging Face (or a private one; set HF_TOKEN then)"
            ), link
        case HfHubHTTPError(response=object(status_code=403)):
            return InvalidToken(
                f"{name}: this HF_TOKEN may not read it; give it read access, or make another"
            ), f"{constants.ENDPOINT}/settings/tokens"
        case EntryNotFoundError() if isinstance(error, HfHubHTTPError):
            return DownloadFailed(f"{name} changed while it was downloaded; start again"), link
    return _to_download_error(error, name), None


def _to_download_error(error: BaseException, name: str) -> MillmError:
    match error:
        case OfflineModeIsEnabled():
            return DownloadFailed(
                f"{name}: not in the local cache, and HF_HUB_OFFLINE forbids to download it; unset it, or give a folder"
            )
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return InsufficientDisk(
                f"{name}: the disk is full; make room, or set HF_HOME to a folder elsewhere; what is finished stays"
            )
        case OSError(errno=int()):
            return DownloadFailed(
                f"{name}: the cache cannot be written ({error.strerror}); mend its permissions, or set HF_HOME to a"
                " folder elsewhere"
            )
    return DownloadFailed(
        f"{name} could not be downloaded from {constants.ENDPOINT} ({_error_label(error)}) and is not complete in the"
        " local cache; check the network and HF_ENDPOINT, and start again: what is finished stays"
    )


def _error_label(error: BaseException) -> str:
    match error:
        case HubBusy(status=status) | HfHubHTTPError(response=object(status_code=status)):
            return f"status {status}"
    return type(error).__name__


def _sent_token(error: HfHubHTTPError) -> bool:
    return "authorization" in error.response.request.headers


def _root_cause(error: BaseException) -> BaseException:
    """The cause behind a `LocalEntryNotFoundError`."""
    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


Result = TypeVar("Result")
_MAX_BACKOFF_SECONDS = 60.0
_MAX_RETRY_AFTER_SECONDS = 3600.0


@dataclass(frozen=True)
class RetryWait:
    """The wait before another try."""

    attempt: int
    """The number of the next try."""
    until: float
    """On the monotonic clock, in seconds."""
    error: BaseException


@dataclass(frozen=True)
class RetryPolicy:
    tries: int
    backoff: float
    """Seconds before the second try."""

    def call(self, action: Callable[[], Result], on_wait: Callable[[RetryWait | None], None]) -> Result:
        """Raises the last error once tries are used up or another one cannot help."""
        for attempt in range(1, self.tries):
            try:
                patch_session()
                return action()
            except HUB_ERRORS as error:
                if not is_transient(error):
                    raise
                wait = RetryWait(attempt + 1, time.monotonic() + self._wait_seconds(attempt, error), error)
            on_wait(wait)
            time.sleep(max(0, wait.until - time.monotonic()))
            on_wait(None)
        patch_session()
        return action()

    def _wait_seconds(self, attempt: int, error: BaseException) -> float:
        if isinstance(error, HubBusy) and error.retry_after is not None:
            return min(error.retry_after, _MAX_RETRY_AFTER_SECONDS)
        return min(_MAX_BACKOFF_SECONDS, self.backoff * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311  no secret
