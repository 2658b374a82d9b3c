"""Trying again: after longer and longer waits, or after as long as the hub asks for, and told while it waits."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from millm.hub.refusals import HUB_ERRORS, is_transient
from millm.hub.session import HubBusy, patch_session

Result = TypeVar("Result")

_MAX_BACKOFF_SECONDS = 60.0
_MAX_RETRY_AFTER_SECONDS = 3600.0


@dataclass(frozen=True)
class RetryWait:
    """Until another try."""

    attempt: int
    """The one that comes."""
    until: float
    """On the monotonic clock."""
    error: BaseException


@dataclass(frozen=True)
class RetryPolicy:
    tries: int
    backoff: float
    """Seconds after the first."""

    def call(self, action: Callable[[], Result], on_wait: Callable[[RetryWait | None], None]) -> Result:
        """Raises what `act` does when another try cannot help, or has not."""
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
