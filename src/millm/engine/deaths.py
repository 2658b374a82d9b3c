"""How often the engine may die and be started again: more often, and something is wrong that no restart mends."""

import time
from collections import deque

RESTARTS = 3
WINDOW_SECONDS = 60.0
TOO_OFTEN = f"died {RESTARTS + 1} times within {WINDOW_SECONDS:.0f} s"


class Deaths:
    def __init__(self) -> None:
        self._when: deque[float] = deque(maxlen=RESTARTS)

    def one_too_many(self) -> bool:
        """It has just died: was that once too often? One that was is not counted."""
        now = time.monotonic()
        if len(self._when) == RESTARTS and now - self._when[0] < WINDOW_SECONDS:
            return True
        self._when.append(now)
        return False
