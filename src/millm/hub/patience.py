"""Trying again: after longer and longer waits, or after as long as the hub asks for, and told while it waits."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from millm.hub.refusals import FAILURES, is_passing
from millm.hub.session import Busy, watch_session

Result = TypeVar("Result")

_LONGEST = 60.0
_LONGEST_ASKED_FOR = 3600.0


@dataclass(frozen=True)
class Wait:
    """Until another try."""

    attempt: int
    """The one that comes."""
    until: float
    """On the monotonic clock."""
    why: BaseException


@dataclass(frozen=True)
class Patience:
    tries: int
    backoff: float
    """Seconds after the first."""

    def keep_trying(self, act: Callable[[], Result], on_wait: Callable[[Wait | None], None]) -> Result:
        """Raises what `act` does when another try cannot help, or has not."""
        for attempt in range(1, self.tries):
            try:
                watch_session()
                return act()
            except FAILURES as error:
                if not is_passing(error):
                    raise
                wait = Wait(attempt + 1, time.monotonic() + self._seconds(attempt, error), error)
            on_wait(wait)
            time.sleep(max(0, wait.until - time.monotonic()))
            on_wait(None)
        watch_session()
        return act()

    def _seconds(self, attempt: int, error: BaseException) -> float:
        if isinstance(error, Busy) and error.retry_after is not None:
            return min(error.retry_after, _LONGEST_ASKED_FOR)
        return min(_LONGEST, self.backoff * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311  no secret
