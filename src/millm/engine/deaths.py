"""How often the engine may die and be started as it was: more often, and something is wrong that no restart mends."""

import time
from collections import deque

MAX_CRASHES = 3
CRASH_WINDOW_SECONDS = 600.0
CRASH_LIMIT_MESSAGE = f"the engine died {MAX_CRASHES} times within {CRASH_WINDOW_SECONDS / 60:.0f} minutes"


class CrashLimiter:
    def __init__(self) -> None:
        self._crash_times: deque[float] = deque(maxlen=MAX_CRASHES)

    def record_crash(self) -> bool:
        """It has just died: was that once too often? After one that was, counting begins again."""
        now = time.monotonic()
        self._crash_times.append(now)
        if len(self._crash_times) < MAX_CRASHES or now - self._crash_times[0] > CRASH_WINDOW_SECONDS:
            return False
        self._crash_times.clear()
        return True
