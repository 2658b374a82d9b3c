"""How fast requests have been ending of late: when somebody who was refused can expect a place."""

import math
import time
from collections import deque

MAX_FINISH_TIMES = 32
DEFAULT_RETRY_SECONDS = 2
"""Told before enough requests have ended to go by."""
MAX_RETRY_SECONDS = 60


class RetryAfterEstimator:
    def __init__(self) -> None:
        self._finish_times: deque[float] = deque(maxlen=MAX_FINISH_TIMES)

    def record_finished(self) -> None:
        """A request has ended now."""
        self._finish_times.append(time.monotonic())

    def retry_after_seconds(self, waiting: int) -> int:
        """Until half of those that wait have had their turn, within 1 to 60 s."""
        if len(self._finish_times) < MAX_FINISH_TIMES:
            return DEFAULT_RETRY_SECONDS
        seconds_each = (time.monotonic() - self._finish_times[0]) / MAX_FINISH_TIMES
        return min(max(math.ceil(waiting / 2 * seconds_each), 1), MAX_RETRY_SECONDS)
