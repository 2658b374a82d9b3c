"""How fast requests have been ending of late: when somebody who was refused can expect a place."""

import math
import time
from collections import deque

REMEMBERED = 32
UNKNOWN_SECONDS = 2
"""Told before enough requests have ended to go by."""
LONGEST_SECONDS = 60


class Pace:
    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=REMEMBERED)

    def ended(self) -> None:
        """A request has ended now."""
        self._ends.append(time.monotonic())

    def retry_after_seconds(self, waiting: int) -> int:
        """Until half of those that wait have had their turn, within 1 to 60 s."""
        if len(self._ends) < REMEMBERED:
            return UNKNOWN_SECONDS
        seconds_each = (time.monotonic() - self._ends[0]) / REMEMBERED
        return min(max(math.ceil(waiting / 2 * seconds_each), 1), LONGEST_SECONDS)
