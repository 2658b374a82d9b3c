"""How often the engine may die and be started as it was: more often, and something is wrong that no restart mends."""

import time
from collections import deque

DEATHS = 3
WINDOW_SECONDS = 600.0
TOO_OFTEN = f"the engine died {DEATHS} times within {WINDOW_SECONDS / 60:.0f} minutes"


class Deaths:
    def __init__(self) -> None:
        self._when: deque[float] = deque(maxlen=DEATHS)

    def one_too_many(self) -> bool:
        """It has just died: was that once too often? After one that was, counting begins again."""
        now = time.monotonic()
        self._when.append(now)
        if len(self._when) < DEATHS or now - self._when[0] > WINDOW_SECONDS:
            return False
        self._when.clear()
        return True
