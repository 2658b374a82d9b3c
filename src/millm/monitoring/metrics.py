"""Prometheus counters and histograms of one server, in its own registry.

Labels are routes, methods, statuses, ends and error codes, never values that a client chooses.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from millm.events import RequestRecord

FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
INTER_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
ANSWER_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds."""
COUNTER_LABELS = {"millm_http_requests": ("route", "method", "status"), "millm_answers": ("endpoint", "end")}
NO_ROUTE = "none"
"""Label of requests to unknown addresses."""
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"))


class Meter:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, help: str) -> Counter:
            return Counter(name, help, COUNTER_LABELS.get(name, ()), registry=registry)

        def histogram(name: str, help: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, help, buckets=buckets, registry=registry)

        self._requests = counter(
            "millm_http_requests", "HTTP requests and websockets that have ended, by route, method and status."
        )
        self._answers = counter(
            "millm_answers",
            "Answers that have ended, by route and end: `stop`, `length`, `tool_calls`, `embedded`, `cancelled`"
            " (client disconnected), or an error code.",
        )
        self._first_token = histogram(
            "millm_time_to_first_token_seconds",
            "From the parsed request to the first text of its answer, queueing included.",
            FIRST_TOKEN_BUCKETS,
        )
        self._inter_token = histogram(
            "millm_inter_token_seconds", "Between two tokens of one choice.", INTER_TOKEN_BUCKETS
        )
        self._answer_seconds = histogram(
            "millm_answer_seconds", "From the parsed request to the end of its answer.", ANSWER_BUCKETS
        )
        self._generated_tokens = counter("millm_generated_tokens", "Generated tokens, also of unfinished answers.")
        self._prompt_tokens = counter("millm_prompt_tokens", "Tokens of prompts and inputs with an answer.")
        self._cached_tokens = counter("millm_cached_prompt_tokens", "Prompt tokens that were not computed again.")

    def count_response(self, route: str | None, method: str, status: int | None) -> None:
        """`status`: None where no response was sent."""
        label = method if method in _METHODS else "other"
        self._requests.labels(route or NO_ROUTE, label, "none" if status is None else str(status)).inc()

    def observe_first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def observe_token(self, seconds: float | None) -> None:
        """`seconds`: since the previous token of the choice, if any."""
        self._generated_tokens.inc()
        if seconds is not None:
            self._inter_token.observe(seconds)

    def count_answer(self, record: RequestRecord, *, is_prompt_read: bool) -> None:
        """`is_prompt_read`: the request got at least a part of its answer."""
        self._answers.labels(record.endpoint, str(record.error or record.end)).inc()
        self._answer_seconds.observe(record.seconds)
        if is_prompt_read:
            self._prompt_tokens.inc(record.prompt_tokens)
            self._cached_tokens.inc(record.cached_tokens)
