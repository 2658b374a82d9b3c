"""The API process's side of the engine: requests out, an async iterator of events per job back.

How fast requests have been ending of late: when somebody who was refused can expect a place.
"""

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
    CommandFailed,
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
    SetActiveSteering,
    TextCommand,
    TextEmbedded,
    Token,
)
from millm.engine.supervisor import (
    POLL_SECONDS,
    EngineSupervisor,
    OnProgress,
    SequenceEvent,
    engine_crashed_error,
    raise_failure,
)
from millm.errors import EngineCrashed, MillmError, ModelNotLoaded, QueueFull, RequestCancelled
from millm.sae.steering import Steering

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


TextResult = TypeVar("TextResult", TextEmbedded, AnswerScored, FeaturesScanned)
MAX_TEXTS_IN_FLIGHT = 8
"""Texts of one job that the engine has: enough that it never waits for the next, and other jobs have their turn."""


class SequenceEventQueue(asyncio.Queue[SequenceEvent]):
    """Where the events of a job's sequences go."""

    def __init__(self) -> None:
        super().__init__()
        self.request_id: str | None = structlog.contextvars.get_contextvars().get("request_id")
        """The request, as log lines know it."""


class EngineClient(EngineSupervisor):
    """Lives on one event loop."""

    def __init__(self, *, max_queue: int, step_seconds: float = 600.0, log_level: str = "info") -> None:
        super().__init__(step_seconds=step_seconds, log_level=log_level)
        self.closed_reason: str | None = None
        """Why nobody new is let in, while the model is about to change."""
        self._max_queue = max_queue
        self._slots = 1
        self._event_queues: dict[str, SequenceEventQueue] = {}
        """Of each sequence the engine has: where its events go. One inbox for all the sequences of a job."""
        self._retry_estimator = RetryAfterEstimator()
        self._last_finished_at = time.monotonic()
        self._active_steering: Steering | None = None
        self._abort_error: MillmError | None = None

    # -------------------------------------------------------------------------------------------- how busy it is

    @property
    def idle_seconds(self) -> float:
        """Since the last answer ended."""
        return 0.0 if self.in_flight else time.monotonic() - self._last_finished_at

    @property
    def in_flight(self) -> int:
        """Sequences the engine has: those that run and those that wait."""
        return len(self._event_queues)

    @property
    def running(self) -> int:
        return min(self.in_flight, self._slots)

    @property
    def capacity(self) -> int:
        """Sequences that can be in flight: as many as run at once, and the queue."""
        return self._slots + self._max_queue

    # ----------------------------------------------------------------------------------------- about all of them

    async def load(self, command: LoadModel, on_progress: OnProgress | None = None) -> ModelFacts:
        facts = await super().load(command, on_progress)
        self._slots = facts.slots
        return facts

    def cancel_load(self, command: LoadModel) -> None:
        """The load ends with ModelNotLoaded as soon as it next reports; the state is then that before it."""
        self._tell(Cancel(id=command.id))

    async def drain(self, reason: str, seconds: float) -> None:
        """Nobody new is let in until `reopen`; who is in flight has so long to end."""
        self.closed_reason = reason
        deadline = time.monotonic() + seconds
        while self.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)

    def reopen(self) -> None:
        self.closed_reason = None

    def abort_all(self, error: MillmError) -> None:
        """For good: what is in flight ends with this error, and so does all that comes."""
        self._abort_error = error
        for id, inbox in self._event_queues.items():
            inbox.put_nowait(CommandFailed(id=id, code=error.code, message=error.message))

    def set_active_steering(self, steering: Steering | None) -> None:
        """What sequences that follow get, those in flight from their next token."""
        self._active_steering = steering
        self._tell(SetActiveSteering(steering=steering))

    # --------------------------------------------------------------------------------------------------- answers

    def check_capacity(self, sequences: int = 1) -> None:
        """Raises what it was ended with, ModelNotLoaded, or QueueFull when that many more would have to wait with too
        many others."""
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
            again = self._retry_estimator.retry_after_seconds(waiting)
            raise QueueFull(
                f"{waiting} of at most {self._max_queue} requests are waiting already; try again in {again} s",
                retry_after_seconds=again,
            )

    async def generate(self, *requests: Generate) -> AsyncGenerator[PromptScores | Token | Finished]:
        """Start all of one job's sequences, or none: → the scores and tokens of all, and one `Finished` for each.

        Raises MillmError, when one of them fails; closing the iterator cancels the others at the next step.
        """
        self.check_capacity(len(requests))
        inbox = SequenceEventQueue()
        open_ids = {request.id for request in requests}
        self._event_queues.update(dict.fromkeys(open_ids, inbox))
        try:
            self._send(*(self._with_active_steering(request) for request in requests))
            while open_ids:
                event = await inbox.get()
                raise_failure(event)
                assert isinstance(event, PromptScores | Token | Finished)
                if isinstance(event, Finished):
                    open_ids.remove(event.id)
                yield event
        finally:
            self.cancel(*open_ids & self._event_queues.keys())  # the caller left before the end

    async def embed(self, *texts: Embed) -> list[TextEmbedded]:
        """The vectors of one job's texts, in their order. A few at a time wait in the engine, and those count.

        Raises MillmError, when one of them fails; the others are then cancelled, as when the caller leaves.
        """
        return await self._run_texts(texts, TextEmbedded)

    async def score_answers(self, *texts: ScoreAnswer) -> list[AnswerScored]:
        """How likely each answer is; as `embed`."""
        return await self._run_texts(texts, AnswerScored)

    async def scan_features(self, *texts: ScanFeatures) -> list[FeaturesScanned]:
        """Which features fire on each text; as `embed`."""
        return await self._run_texts(texts, FeaturesScanned)

    async def query_features(self, command: FeatureQuery) -> FeatureQueryResult:
        """What decoder rows say. Raises ModelNotLoaded and what the engine refuses."""
        self.check_capacity(0)
        event = await self._request(command)
        assert isinstance(event, FeatureQueryResult)
        return event

    async def _run_texts(self, texts: Sequence[TextCommand], result_type: type[TextResult]) -> list[TextResult]:
        self.check_capacity(min(len(texts), MAX_TEXTS_IN_FLIGHT))
        inbox = SequenceEventQueue()
        unsent, open_ids = deque(texts), set[str]()
        answers: dict[str, TextResult] = {}
        try:
            while unsent or open_ids:
                following = [unsent.popleft() for _ in range(min(len(unsent), MAX_TEXTS_IN_FLIGHT - len(open_ids)))]
                open_ids.update(text.id for text in following)
                self._event_queues.update({text.id: inbox for text in following})
                self._send(*following)
                event = await inbox.get()
                raise_failure(event)
                assert isinstance(event, result_type)
                open_ids.remove(event.id)
                answers[event.id] = event
        finally:
            self.cancel(*open_ids & self._event_queues.keys())
        return [answers[text.id] for text in texts]

    def abort(self, *ids: str) -> bool:
        """Whoever iterates over one of these gets RequestCancelled, and none runs on; False: the engine has none."""
        ours = [id for id in ids if id in self._event_queues]
        for id in ours[:1]:  # one fails, and with it the job that they are of
            message = "The request was ended on the server."
            self._event_queues[id].put_nowait(CommandFailed(id=id, code=RequestCancelled.code, message=message))
        return bool(ours)

    def cancel(self, *ids: str) -> None:
        """End sequences at the next step; whoever iterates over them still gets their `Finished`."""
        self._tell(*(Cancel(id=id) for id in ids))

    # -------------------------------------------------------------------------------------------------- plumbing

    def _handle_sequence_event(self, event: SequenceEvent) -> None:
        """A sequence is in flight until its last event has come, whether or not somebody still waits for it."""
        if isinstance(event, Token | PromptScores):
            inbox = self._event_queues.get(event.id)
        else:
            self._retry_estimator.record_finished()
            self._last_finished_at = time.monotonic()
            inbox = self._event_queues.pop(event.id, None)
        if inbox:
            inbox.put_nowait(event)

    def _log_context(self, fields: dict[str, Any]) -> dict[str, Any]:
        inbox = self._event_queues.get(fields.get("command", ""))
        return {"request_id": inbox.request_id} if inbox and inbox.request_id else {}

    def _fail_sequences(self) -> None:
        failed = engine_crashed_error()
        for id, inbox in self._event_queues.items():
            inbox.put_nowait(CommandFailed(id=id, code=failed.code, message=failed.message))
        self._event_queues.clear()

    def _on_model_change(self) -> None:
        self._active_steering = None
        self._last_finished_at = time.monotonic()

    def _with_active_steering(self, request: Generate) -> Generate:
        """What is active may have changed since the request was read; from here on, the engine sees to it."""
        return replace(request, steering=self._active_steering) if request.follows_active else request

    def _tell(self, *commands: SetActiveSteering | Cancel) -> None:
        """What only concerns sequences in flight: an engine that has died has none."""
        if commands and self._process:
            with contextlib.suppress(EngineCrashed):
                self._process.send(commands)
