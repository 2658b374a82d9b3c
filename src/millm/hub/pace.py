"""How fast a download is, smoothed, and how long it will take at that."""

from math import exp

_SMOOTHING_SECONDS = 3.0
_MIN_SPEED = 1.0
"""Bytes per second."""


class SpeedMeter:
    """Fed with bytes so far; what was there before the first time does not count as fast."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._speed = 0.0

    def add(self, bytes_done: int, now: float) -> None:
        """`now`: seconds on the monotonic clock."""
        if self._last is not None and now > self._last[1]:
            before, then = self._last
            weight = 1 - exp((then - now) / _SMOOTHING_SECONDS)
            self._speed += weight * (max(0, bytes_done - before) / (now - then) - self._speed)
        self._last = bytes_done, now

    @property
    def speed(self) -> float | None:
        """Bytes per second; None while nothing moves."""
        return self._speed if self._speed >= _MIN_SPEED else None

    def seconds_left(self, missing: int) -> float | None:
        return missing / self._speed if self.speed else None
