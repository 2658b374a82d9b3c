"""The API process's client of the engine: sends requests, returns their events, limits the queue."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

import structlog
from msgspec.structs import replace

from millm.engine.messages import (
    AnswerScored,
    Cancel,
    Embed,
    FeatureQuery,
    FeatureQueryResult,
    FeaturesScanned,
    Finished,
    Generate,
    LoadModel,
    ModelFacts,
    PromptScores,
    ScanFeatures,
    ScoreAnswer,
    SequenceEvent,
    SetActiveSteering,
    TextCommand,
    TextEmbedded,
    Token,
)
from millm.engine.supervisor import (
    POLL_SECONDS,
    EngineSupervisor,
    ProgressCallback,
    engine_crashed_error,
    post_failure,
    raise_failure,
)
from millm.errors import EngineCrashed, MillmError, ModelNotLoaded, QueueFull, RequestCancelled
from millm.sae.steering import Steering

TextResult = TypeVar("TextResult", TextEmbedded, AnswerScored, FeaturesScanned)
MAX_TEXTS_IN_FLIGHT = 8  # Per job: the engine never waits for the next text, and other jobs get their turn
MAX_FINISH_TIMES = 32
DEFAULT_RETRY_SECONDS = 2  # Retry-After before `MAX_FINISH_TIMES` requests have finished
MAX_RETRY_SECONDS = 60


class SequenceEventQueue(asyncio.Queue[SequenceEvent]):
    """Events of one job's sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.request_id: str | None = structlog.contextvars.get_contextvars().get("request_id")
        """HTTP request of the job, for log lines."""


class EngineClient(EngineSupervisor):
    """Lives on one event loop."""

    def __init__(self, *, max_queue: int, step_seconds: float = 600.0, log_level: str = "info") -> None:
        super().__init__(step_seconds=step_seconds, log_level=log_level)
        self.closed_reason: str | None = None  # Why new requests are refused while the model is about to change
        self._max_queue = max_queue
        self._slots = 1
        self._event_queues: dict[str, SequenceEventQueue] = {}  # By sequence id; the sequences of a job share a queue
        self._retry_estimator = RetryAfterEstimator()
        self._last_finished_at = time.monotonic()
        self._active_steering: Steering | None = None
        self._abort_error: MillmError | None = None

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last sequence finished; 0 while one is in flight."""
        return 0.0 if self.in_flight else time.monotonic() - self._last_finished_at

    @property
    def in_flight(self) -> int:
        """Number of sequences in the engine, running and waiting."""
        return len(self._event_queues)

    @property
    def running(self) -> int:
        return min(self.in_flight, self._slots)

    @property
    def capacity(self) -> int:
        """Maximum number of sequences in flight: the slots and the queue."""
        return self._slots + self._max_queue

    async def load(self, command: LoadModel, on_progress: ProgressCallback | None = None) -> ModelFacts:
        facts = await super().load(command, on_progress)
        self._slots = facts.slots
        return facts

    def cancel_load(self, command: LoadModel) -> None:
        """End the load with ModelNotLoaded at its next progress report; the old model stays loaded."""
        self._send_if_running(Cancel(id=command.id))

    async def drain(self, reason: str, seconds: float) -> None:
        """Refuse new requests until `reopen`; wait up to `seconds` for those in flight."""
        self.closed_reason = reason
        deadline = time.monotonic() + seconds
        while self.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)

    def reopen(self) -> None:
        self.closed_reason = None

    def abort_all(self, error: MillmError) -> None:
        """End all sequences in flight, and all later ones, with `error`."""
        self._abort_error = error
        post_failure(self._event_queues, error)

    def set_active_steering(self, steering: Steering | None) -> None:
        """Steer sequences with `follows_active`; those in flight from their next token."""
        self._active_steering = steering
        self._send_if_running(SetActiveSteering(steering=steering))

    def check_capacity(self, sequences: int = 1) -> None:
        """Raises ModelNotLoaded, QueueFull if the queue has no room for that many more, or the error of `abort_all`."""
        if self._abort_error:
            raise self._abort_error
        if self.status == "restarting":
            raise ModelNotLoaded("the engine stopped and is being restarted; try again in a few seconds")
        if self.closed_reason:
            raise ModelNotLoaded(self.closed_reason)
        if self.status != "ready" or not self._snapshot.model:
            raise ModelNotLoaded("no model is loaded")
        if self.in_flight + sequences > self.capacity:
            waiting = self.in_flight - self.running
            seconds = self._retry_estimator.retry_after_seconds(waiting)
            raise QueueFull(
                f"{waiting} of at most {self._max_queue} requests are waiting already; try again in {seconds} s",
                retry_after_seconds=seconds,
            )

    async def generate(self, *requests: Generate) -> AsyncGenerator[PromptScores | Token | Finished]:
        """Start all sequences of one job, or none; yields one `Finished` for each. Raises MillmError if one fails."""
        self.check_capacity(len(requests))
        queue = SequenceEventQueue()
        open_ids = {request.id for request in requests}
        self._event_queues.update(dict.fromkeys(open_ids, queue))
        try:
            self._send(*(self._with_active_steering(request) for request in requests))
            while open_ids:
                event = await queue.get()
                raise_failure(event)
                assert isinstance(event, PromptScores | Token | Finished)
                if isinstance(event, Finished):
                    open_ids.remove(event.id)
                yield event
        finally:
            self.cancel(*open_ids & self._event_queues.keys())  # the caller left early

    async def embed(self, *texts: Embed) -> list[TextEmbedded]:
        return await self._run_texts(texts, TextEmbedded)

    async def score_answers(self, *texts: ScoreAnswer) -> list[AnswerScored]:
        return await self._run_texts(texts, AnswerScored)

    async def scan_features(self, *texts: ScanFeatures) -> list[FeaturesScanned]:
        return await self._run_texts(texts, FeaturesScanned)

    async def query_features(self, command: FeatureQuery) -> FeatureQueryResult:
        """Raises MillmError."""
        self.check_capacity(0)
        event = await self._request(command)
        assert isinstance(event, FeatureQueryResult)
        return event

    async def _run_texts(self, texts: Sequence[TextCommand], result_type: type[TextResult]) -> list[TextResult]:
        """The results of one job's texts, in their order, with `MAX_TEXTS_IN_FLIGHT` texts at a time in the engine.

        Raises MillmError if one fails; the others are then cancelled, as when the caller leaves.
        """
        self.check_capacity(min(len(texts), MAX_TEXTS_IN_FLIGHT))
        queue = SequenceEventQueue()
        unsent, open_ids = deque(texts), set[str]()
        results: dict[str, TextResult] = {}
        try:
            while unsent or open_ids:
                batch = [unsent.popleft() for _ in range(min(len(unsent), MAX_TEXTS_IN_FLIGHT - len(open_ids)))]
                open_ids.update(text.id for text in batch)
                self._event_queues.update({text.id: queue for text in batch})
                self._send(*batch)
                event = await queue.get()
                raise_failure(event)
                assert isinstance(event, result_type)
                open_ids.remove(event.id)
                results[event.id] = event
        finally:
            self.cancel(*open_ids & self._event_queues.keys())
        return [results[text.id] for text in texts]

    def abort(self, *ids: str) -> bool:
        """End the job of these sequences with RequestCancelled. False if none is in flight."""
        in_flight = {id: self._event_queues[id] for id in ids if id in self._event_queues}
        for id, queue in list(in_flight.items())[:1]:  # one failure ends the job
            post_failure({id: queue}, RequestCancelled("The request was ended on the server."))
        return bool(in_flight)

    def cancel(self, *ids: str) -> None:
        """End sequences at the next step; their iterators still yield `Finished`."""
        self._send_if_running(*(Cancel(id=id) for id in ids))

    def _handle_sequence_event(self, event: SequenceEvent) -> None:
        """A sequence is in flight until its last event, even if its caller has left."""
        if isinstance(event, Token | PromptScores):
            queue = self._event_queues.get(event.id)
        else:
            self._retry_estimator.record_finished()
            self._last_finished_at = time.monotonic()
            queue = self._event_queues.pop(event.id, None)
        if queue:
            queue.put_nowait(event)

    def _log_context(self, fields: dict[str, Any]) -> dict[str, Any]:
        queue = self._event_queues.get(fields.get("command", ""))
        return {"request_id": queue.request_id} if queue and queue.request_id else {}

    def _fail_sequences(self) -> None:
        post_failure(self._event_queues, engine_crashed_error())
        self._event_queues.clear()

    def _on_model_change(self) -> None:
        self._active_steering = None
        self._last_finished_at = time.monotonic()

    def _with_active_steering(self, request: Generate) -> Generate:
        """The active steering may have changed since the request was parsed."""
        return replace(request, steering=self._active_steering) if request.follows_active else request

    def _send_if_running(self, *commands: SetActiveSteering | Cancel) -> None:
        """Send commands that only concern sequences in flight; a crashed engine has none."""
        if commands and self._process:
            with contextlib.suppress(EngineCrashed):
                self._process.send(commands)


class RetryAfterEstimator:
    """Estimates Retry-After from the recent rate of finished requests."""

    def __init__(self) -> None:
        self._finish_times: deque[float] = deque(maxlen=MAX_FINISH_TIMES)

    def record_finished(self) -> None:
        self._finish_times.append(time.monotonic())

    def retry_after_seconds(self, waiting: int) -> int:
        """Seconds until half of the waiting requests will have finished, from 1 to 60."""
        if len(self._finish_times) < MAX_FINISH_TIMES:
            return DEFAULT_RETRY_SECONDS
        seconds_each = (time.monotonic() - self._finish_times[0]) / MAX_FINISH_TIMES
        return min(max(math.ceil(waiting / 2 * seconds_each), 1), MAX_RETRY_SECONDS)
