"""Speed and time left, from bytes and a clock."""

import pytest

from millm.hub.downloads import SpeedMeter


def test_steady_rate() -> None:
    pace = SpeedMeter()
    for tick in range(101):
        pace.add(5_000_000 + tick * 20_000, tick * 0.2)
    assert pace.speed == pytest.approx(100_000, rel=0.01)
    assert pace.seconds_left(1_000_000) == pytest.approx(10, rel=0.01)


def test_existing_bytes_and_stalls_give_no_speed() -> None:
    pace = SpeedMeter()
    pace.add(10**12, 0)
    assert (pace.speed, pace.seconds_left(5)) == (None, None)
    pace.add(10**12 + 1000, 1)
    assert pace.speed is not None
    for tick in range(2, 100):
        pace.add(10**12 + 1000, tick)
    assert (pace.speed, pace.seconds_left(5)) == (None, None)
