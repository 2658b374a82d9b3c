"""Retry-After is estimated from the rate of finished requests, within bounds."""

import time

import pytest

from millm.engine.client import DEFAULT_RETRY_SECONDS, MAX_FINISH_TIMES, MAX_RETRY_SECONDS, RetryAfterEstimator


def test_default_before_any_request_finished() -> None:
    pace = RetryAfterEstimator()
    for _ in range(MAX_FINISH_TIMES - 1):
        pace.record_finished()
    assert pace.retry_after_seconds(10_000) == DEFAULT_RETRY_SECONDS


def test_estimate_is_half_the_queue_at_the_measured_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """At one request per 0.1 s, half of a queue of 400 takes 20 s."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = RetryAfterEstimator()
    for _ in range(3 * MAX_FINISH_TIMES):
        pace.record_finished()
        clock[0] += 0.1
    assert pace.retry_after_seconds(400) == 20
    assert pace.retry_after_seconds(0) == 1
    assert pace.retry_after_seconds(10**6) == MAX_RETRY_SECONDS
