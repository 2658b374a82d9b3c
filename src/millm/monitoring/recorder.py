"""Records every request while it runs: for `/api/queue`, the history, the events, the metrics and the access log.

`Monitor` belongs to the server: what to watch in every request, open requests, history. A `RequestRecorder` belongs to
one request; it fills in the `RequestRecord` that all of these read.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from msgspec import UNSET
from msgspec.structs import replace
from starlette.types import Scope

from millm.database import Database
from millm.engine.messages import Reading, SaeFacts, SteeringReceipt
from millm.errors import MillmError
from millm.events import Activations, EndReason, EventBus, RequestEnded, RequestRecord, WatchedSae
from millm.monitoring.history import REQUEST_OVERHEAD_BYTES, ActivationTrack, History, HistoryEntry, RequestTexts
from millm.monitoring.metrics import Meter
from millm.monitoring.watch import (
    MonitorConfig,
    SaeWatch,
    WatchPlan,
    merge_watches,
    read_monitor_config,
    write_monitor_config,
)
from millm.sae.steering import Watch
from millm.settings import Settings

TextAtPosition = Callable[[int], str]
"""Text of the token at a position in prompt + completion."""


def closed_records(scope: Scope) -> list[RequestRecord]:
    """Records that closed within this HTTP request: none, one, or several for an experiment."""
    records: list[RequestRecord] = scope.setdefault("state", {}).setdefault("records", [])
    return records


def combine_receipts(receipts: Sequence[SteeringReceipt]) -> SteeringReceipt | None:
    """The first fingerprint, summed positions and the mean ratio over them; None without receipts."""
    if not receipts:
        return None
    steered = sum(receipt.tokens_steered for receipt in receipts)
    total = sum(receipt.delta_norm_ratio * receipt.tokens_steered for receipt in receipts)
    return SteeringReceipt(
        fingerprint=receipts[0].fingerprint,
        tokens_steered=steered,
        delta_norm_ratio=total / steered if steered else 0.0,
        degraded=next((receipt.degraded for receipt in receipts if receipt.degraded), None),
    )


class RequestRecorder:
    """Fills in the record of one request and stores its activations and texts."""

    def __init__(
        self,
        monitor: "Monitor",
        record: RequestRecord,
        watch_plan: WatchPlan,
        prompts: Mapping[str, Sequence[int]],
        read_prompts: Callable[[], tuple[str, ...]],
        body: bytes,
    ) -> None:
        """`prompts`: sequence id of each choice or input → its token ids; `read_prompts`: the different prompts as the
        model reads them; `body`: the client's JSON.
        """
        self.record, self._watch_plan = record, watch_plan
        self.sequence_ids = tuple(prompts)
        self._prompt_lengths = tuple(map(len, prompts.values()))
        self._read_prompts, self._body = read_prompts, body
        self._history, self._events, self._meter = monitor.history, monitor.events, monitor.meter
        self._text_policy = monitor.text_policy
        self._began = time.monotonic()
        self._last_token_times: dict[int, float] = {}
        """Choice → monotonic time of its last token."""
        self._features_by_sae = {watch.sae: watch.features for watch in watch_plan.recorded_watches}
        self._tracks: dict[tuple[int, str, bool], ActivationTrack] = {}
        self._reserved_bytes = REQUEST_OVERHEAD_BYTES if self._history.reserve(REQUEST_OVERHEAD_BYTES) else 0
        self._is_truncated = False
        self._ends: list[EndReason] = []
        self._receipts: list[SteeringReceipt] = []
        self._answer_parts: list[list[str]] | None = None if self._text_policy == "off" else [[] for _ in prompts]

    def update_duration(self) -> RequestRecord:
        self.record.seconds = time.monotonic() - self._began
        return self.record

    def record_token(self, index: int) -> None:
        """Count one token of this choice."""
        now, before = time.monotonic(), self._last_token_times.get(index)
        self._last_token_times[index] = now
        self._meter.observe_token(None if before is None else now - before)

    def record_text(self, index: int, text: str) -> None:
        """Add to the text of a choice; the first call, even with an empty text, is the time of the first token."""
        if self.record.first_token_seconds is None:
            self.record.first_token_seconds = time.monotonic() - self._began
            self._meter.observe_first_token(self.record.first_token_seconds)
        if self._answer_parts is not None and self._reserved_bytes and text:
            self._answer_parts = self._answer_parts if self._reserve_bytes(len(text)) else None
            if self._answer_parts is not None:
                self._answer_parts[index].append(text)

    def record_readings(self, index: int, readings: Iterable[Reading], text_at: TextAtPosition) -> None:
        """Publish and store the engine's readings of one choice or input."""
        for reading in self._watch_plan.recorded_readings(readings, self._prompt_lengths[index]):
            text = text_at(reading.position)
            if len(self._events):
                self._publish_reading(index, reading, text)
            self._store_reading(index, reading, text)

    def record_end(
        self, end: EndReason, tokens: int = 0, cached_tokens: int = 0, receipt: SteeringReceipt | None = None
    ) -> None:
        """Add the end of one choice, or of all inputs of an embedding."""
        self._ends.append(end)
        self.record.completion_tokens += tokens
        self.record.cached_tokens = min(self.record.cached_tokens + cached_tokens, self.record.prompt_tokens)
        self._receipts += [receipt] if receipt else []

    def close(self, end: EndReason | None = None, error: str | None = None) -> None:
        """`end`: overrides the end of the first choice."""
        record = self.update_duration()
        record.end, record.error = end or (self._ends[0] if self._ends else "failed"), error
        if receipt := combine_receipts(self._receipts):
            record.steering, record.tokens_steered = receipt.fingerprint, receipt.tokens_steered
            record.delta_norm_ratio, record.degraded = receipt.delta_norm_ratio, receipt.degraded
        record.watched = self._watched_saes()
        record.is_cut = self._is_truncated and self._history.size > 0
        self._meter.count_answer(record, is_prompt_read=bool(self._ends or self._last_token_times))
        if self._reserved_bytes:
            texts = self._stored_texts()
            self._history.add(HistoryEntry(record, tuple(self._tracks.values()), self._reserved_bytes, texts))
        self._events.publish(RequestEnded(request=record))

    def _watched_saes(self) -> tuple[WatchedSae, ...]:
        return tuple(
            WatchedSae(
                sae=watch.sae,
                features=watch.features,
                top_k=watch.top_k,
                tokens=sum(len(track) for track in self._tracks.values() if track.sae == watch.sae),
            )
            for watch in self._watch_plan.recorded_watches
        )

    def _stored_texts(self) -> RequestTexts:
        prompts, body = None, None
        if self._text_policy == "all" and self._reserve_bytes(4 * self.record.prompt_tokens + len(self._body)):
            prompts, body = self._read_prompts(), self._body.decode(errors="replace")
        has_answers = "embedded" not in self._ends and (self._ends or any(self._answer_parts or ()))
        parts = self._answer_parts if has_answers else None
        answers = None if parts is None else tuple(map("".join, parts))
        return RequestTexts(prompts=prompts, answers=answers, body=body)

    def _reserve_bytes(self, byte_count: int) -> bool:
        """Reserve more of the history for this request."""
        if not self._reserved_bytes or not self._history.reserve(byte_count):
            return False
        self._reserved_bytes += byte_count
        return True

    def _publish_reading(self, index: int, reading: Reading, text: str) -> None:
        self._events.publish(
            Activations(
                endpoint=self.record.endpoint,
                request_id=self.record.id,
                index=index,
                position=reading.position,
                token=text,
                sae=reading.sae,
                features=self._features_by_sae[reading.sae],
                values=reading.values,
                top=reading.top or UNSET,
                after=reading.after or UNSET,
                top_after=reading.top_after or UNSET,
            )
        )

    def _store_reading(self, index: int, reading: Reading, text: str) -> None:
        features = self._features_by_sae[reading.sae] if reading.values else ()
        number_count = len(reading.values) + len(reading.after) + 2 * (len(reading.top) + len(reading.top_after))
        if self._is_truncated or not self._reserve_bytes(ActivationTrack.token_bytes(number_count)):
            self._is_truncated = True
            return
        prompt_length = self._prompt_lengths[index]
        key = (index, reading.sae, bool(features))  # short of memory, the engine drops `values` midway
        track = self._tracks.setdefault(key, ActivationTrack(index, reading.sae, features, prompt_length))
        is_stored = self._text_policy == "all" or (self._text_policy == "answers" and reading.position >= prompt_length)
        stored = text if is_stored else None
        track.add(reading.position, stored, reading.values, reading.top, reading.after, reading.top_after)


class Monitor:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings, events: EventBus, database: Database, meter: Meter) -> None:
        """Reads the configuration from the database; the history starts empty."""
        self.config = read_monitor_config(database)
        self.history = History(settings.history_size, settings.history_bytes)
        self.text_policy = settings.history_texts
        self.events = events
        self.meter = meter
        self.open_requests: dict[str, RequestRecorder] = {}
        """Running requests by id, oldest first."""
        self._database = database
        self._write_lock = asyncio.Lock()

    async def set_config(self, new_config: MonitorConfig) -> None:
        """Applies to new requests. Raises NotStored and changes nothing."""
        async with self._write_lock:
            await asyncio.to_thread(write_monitor_config, self._database, new_config)
            self.config = new_config

    def plan_watches(
        self,
        request_watches: Sequence[Watch],
        saes: Mapping[str, SaeFacts],
        profile_features: Mapping[str, tuple[int, ...]],
    ) -> WatchPlan:
        """`saes`: those attached; `profile_features`: watched features of the active profile, by SAE."""
        own = {watch.sae: watch for watch in self.config.watch} if self.config.on else {}
        followed = profile_features if self.config.on and self.config.follow_profile else {}
        if not request_watches and not own and not followed:
            return WatchPlan()
        candidates = [
            _add_features(own.get(sae, SaeWatch(sae=sae)), followed.get(sae, ())).to_engine_watch(facts)
            for sae, facts in saes.items()
            if sae in own or sae in followed
        ]
        return merge_watches(request_watches, [watch for watch in candidates if watch.features or watch.top_k])

    @contextmanager
    def recording(
        self,
        scope: Scope,
        record: RequestRecord,
        watch_plan: WatchPlan,
        prompts: Mapping[str, Sequence[int]],
        read_prompts: Callable[[], tuple[str, ...]],
        body: bytes,
    ) -> Iterator[RequestRecorder]:
        """A recorder that is open within the `with` block and closed by its outcome."""
        recorder = RequestRecorder(self, record, watch_plan, prompts, read_prompts, body)
        self.open_requests[record.id] = recorder
        try:
            yield recorder
        except BaseException as error:
            is_cancelled = isinstance(error, GeneratorExit | asyncio.CancelledError)
            self._close(
                scope,
                recorder,
                "cancelled" if is_cancelled else "failed",
                error.code if isinstance(error, MillmError) else None,
            )
            raise
        self._close(scope, recorder)

    def _close(
        self, scope: Scope, recorder: RequestRecorder, end: EndReason | None = None, error: str | None = None
    ) -> None:
        self.open_requests.pop(recorder.record.id, None)
        closed_records(scope).append(recorder.record)
        recorder.close(end, error)


def _add_features(watch: SaeWatch, features: tuple[int, ...]) -> SaeWatch:
    return replace(watch, features=(*watch.features, *features))
