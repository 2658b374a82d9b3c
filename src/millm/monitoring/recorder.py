"""One request while it is answered: what is watched goes into the history and to those who listen, then its row.

The monitor of one server: what it watches in every request, and the history of the last ones.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import UNSET
from starlette.types import Scope

from millm.database import Database
from millm.engine.messages import Reading, SaeFacts, SteeringReceipt
from millm.events import (
    Activations,
    EndReason,
    EventBus,
    OpenRequest,
    RequestEnded,
    RequestRow,
    RequestSource,
    WatchedSae,
)
from millm.monitoring import watch as config
from millm.monitoring.history import REQUEST_OVERHEAD_BYTES, ActivationTrack, History, HistoryEntry, RequestTexts
from millm.monitoring.metrics import Meter
from millm.monitoring.watch import MonitorConfig, SaeWatch, WatchPlan, merge_watches
from millm.sae.steering import Watch
from millm.settings import Settings


def request_rows(scope: Scope) -> list[RequestRow]:
    """What the monitor was told of the request: nothing, an answer, or the many of an experiment."""
    rows: list[RequestRow] = scope.setdefault("state", {}).setdefault("rows", [])
    return rows


TextAtPosition = Callable[[int], str]
"""Of a token, by its position in prompt + completion."""


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """What is known of a request before it is answered."""

    id: str
    endpoint: str
    model: str
    profile: str | None
    source: RequestSource
    streamed: bool
    prompt_lengths: tuple[int, ...]
    """Tokens of each choice's prompt, or of each input."""
    prompt_tokens: int
    watch_plan: WatchPlan
    sequence_ids: tuple[str, ...]
    """What the engine calls its parts."""
    read_prompts: Callable[[], tuple[str, ...]]
    """→ the different prompts, or the inputs, as the model reads them."""
    body: bytes
    """As it came."""


@dataclass(frozen=True, kw_only=True)
class ChoiceOutcome:
    """How a choice, or all the inputs, ended."""

    end: EndReason
    tokens: int = 0
    cached_tokens: int = 0
    receipt: SteeringReceipt | None = None


class RequestRecorder:
    def __init__(
        self,
        request: RecordedRequest,
        history: History,
        events: EventBus,
        meter: Meter,
        text_policy: str,
        on_close: Callable[[RequestRow], object],
    ) -> None:
        """`texts`: `answers`, `all` or `off`, as the setting `history_texts`; `closed` is called at its end."""
        self._request, self._history, self._events, self._text_policy = request, history, events, text_policy
        self._meter, self._on_close = meter, on_close
        self._began, self._began_monotonic = time.time(), time.monotonic()
        self._first_token_seconds: float | None = None
        self._last_token_times: dict[int, float] = {}
        """Choice → when its last token came, by the clock."""
        self._features_by_sae = {watch.sae: watch.features for watch in request.watch_plan.recorded_watches}
        self._tracks: dict[tuple[int, str, bool], ActivationTrack] = {}
        self._reserved_bytes = REQUEST_OVERHEAD_BYTES if history.reserve(REQUEST_OVERHEAD_BYTES) else 0
        self._is_truncated = False
        self._outcomes: list[ChoiceOutcome] = []
        self._answer_parts: list[list[str]] | None = (
            None if text_policy == "off" else [[] for _ in request.prompt_lengths]
        )

    @property
    def sequence_ids(self) -> tuple[str, ...]:
        return self._request.sequence_ids

    def snapshot(self) -> OpenRequest:
        asked = self._request
        return OpenRequest(
            id=asked.id,
            endpoint=asked.endpoint,
            model=asked.model,
            profile=asked.profile,
            client=asked.source.client,
            task=asked.source.task,
            began=self._began,
            seconds=time.monotonic() - self._began_monotonic,
            first_token_seconds=self._first_token_seconds,
            streamed=asked.streamed,
            choices=len(asked.prompt_lengths),
            prompt_tokens=asked.prompt_tokens,
        )

    def record_first_token(self) -> None:
        if self._first_token_seconds is None:
            self._first_token_seconds = time.monotonic() - self._began_monotonic
            self._meter.observe_first_token(self._first_token_seconds)

    def record_token(self, index: int) -> None:
        """One has come, of this choice."""
        now, before = time.monotonic(), self._last_token_times.get(index)
        self._last_token_times[index] = now
        self._meter.observe_token(None if before is None else now - before)

    def record_readings(self, index: int, readings: Iterable[Reading], text_at: TextAtPosition) -> None:
        """Readings as the engine tells them, of one choice or input."""
        for reading in self._request.watch_plan.recorded_readings(readings, self._request.prompt_lengths[index]):
            text = text_at(reading.position)
            if len(self._events):
                self._publish_reading(index, reading, text)
            self._store_reading(index, reading, text)

    def record_text(self, index: int, text: str) -> None:
        """More of one choice's answer."""
        if self._answer_parts is not None and self._reserved_bytes and text:
            self._answer_parts = self._answer_parts if self._reserve_bytes(len(text)) else None
            if self._answer_parts is not None:
                self._answer_parts[index].append(text)

    def record_outcome(self, outcome: ChoiceOutcome) -> None:
        self._outcomes.append(outcome)

    def close(self, end: EndReason | None = None, error: str | None = None) -> None:
        """`end`: how all of it ended, where that was not each choice's own end."""
        row = self._build_row(end or (self._outcomes[0].end if self._outcomes else "failed"), error)
        self._on_close(row)
        self._meter.observe_answer(row.endpoint, error or row.end, row.seconds)
        if self._outcomes or self._last_token_times:
            self._meter.count_prompt_tokens(row.prompt_tokens, row.cached_tokens)
        if self._reserved_bytes:
            texts = self._stored_texts()
            self._history.add(HistoryEntry(row, tuple(self._tracks.values()), self._reserved_bytes, texts))
        self._events.publish(RequestEnded(request=row))

    def _stored_texts(self) -> RequestTexts:
        prompts, body = None, None
        if self._text_policy == "all" and self._reserve_bytes(
            4 * self._request.prompt_tokens + len(self._request.body)
        ):
            prompts, body = self._request.read_prompts(), self._request.body.decode(errors="replace")
        is_embedded = any(outcome.end == "embedded" for outcome in self._outcomes)
        wrote = None if is_embedded or not (self._outcomes or any(self._answer_parts or ())) else self._answer_parts
        answers = None if wrote is None else tuple("".join(parts) for parts in wrote)
        return RequestTexts(prompts=prompts, answers=answers, body=body)

    def _reserve_bytes(self, byte_count: int) -> bool:
        """Room for so many bytes more of this request."""
        if not self._reserved_bytes or not self._history.reserve(byte_count):
            return False
        self._reserved_bytes += byte_count
        return True

    def _publish_reading(self, index: int, reading: Reading, text: str) -> None:
        self._events.publish(
            Activations(
                endpoint=self._request.endpoint,
                request_id=self._request.id,
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
        numbers = len(reading.values) + len(reading.after) + 2 * (len(reading.top) + len(reading.top_after))
        if self._is_truncated or not self._reserve_bytes(ActivationTrack.token_bytes(numbers)):
            self._is_truncated = True
            return
        prompt = self._request.prompt_lengths[index]
        place = (index, reading.sae, bool(features))  # short of memory, the engine gives up some of it on the way
        track = self._tracks.setdefault(place, ActivationTrack(index, reading.sae, features, prompt))
        kept = (
            text
            if self._text_policy == "all" or (self._text_policy == "answers" and reading.position >= prompt)
            else None
        )
        track.add(reading.position, kept, reading.values, reading.top, reading.after, reading.top_after)

    def _build_row(self, end: EndReason, error: str | None) -> RequestRow:
        receipts = [outcome.receipt for outcome in self._outcomes if outcome.receipt]
        steered = sum(receipt.tokens_steered for receipt in receipts)
        ratios = sum(receipt.delta_norm_ratio * receipt.tokens_steered for receipt in receipts)
        asked = self._request
        return RequestRow(
            id=asked.id,
            endpoint=asked.endpoint,
            model=asked.model,
            profile=asked.profile,
            client=asked.source.client,
            task=asked.source.task,
            began=self._began,
            seconds=time.monotonic() - self._began_monotonic,
            first_token_seconds=self._first_token_seconds,
            streamed=asked.streamed,
            end=end,
            error=error,
            choices=len(asked.prompt_lengths),
            prompt_tokens=asked.prompt_tokens,
            completion_tokens=sum(outcome.tokens for outcome in self._outcomes),
            cached_tokens=min(sum(outcome.cached_tokens for outcome in self._outcomes), asked.prompt_tokens),
            steering=receipts[0].fingerprint if receipts else None,
            tokens_steered=steered,
            delta_norm_ratio=ratios / steered if steered else 0.0,
            degraded=next((receipt.degraded for receipt in receipts if receipt.degraded), None),
            watched=self._watched_saes(),
            is_cut=self._is_truncated and self._history.size > 0,
        )

    def _watched_saes(self) -> tuple[WatchedSae, ...]:
        return tuple(
            WatchedSae(
                sae=watch.sae,
                features=watch.features,
                top_k=watch.top_k,
                tokens=sum(len(track) for track in self._tracks.values() if track.sae == watch.sae),
            )
            for watch in self._request.watch_plan.recorded_watches
        )


class Monitor:
    """Lives on one event loop."""

    def __init__(self, settings: Settings, events: EventBus, database: Database, meter: Meter) -> None:
        """As it was set before a restart; the history is empty."""
        self.config = config.read_monitor_config(database)
        self.history = History(settings.history_size, settings.history_bytes)
        self._text_policy = settings.history_texts
        self._events = events
        self._meter = meter
        self._database = database
        self._write_lock = asyncio.Lock()
        self.open_requests: dict[str, RequestRecorder] = {}
        """Requests that have not ended, by their ids, the oldest first."""

    async def set_config(self, new_config: MonitorConfig) -> None:
        """For the requests that begin from now on. Raises NotStored; nothing has changed then."""
        async with self._write_lock:
            await asyncio.to_thread(config.write_monitor_config, self._database, new_config)
            self.config = new_config

    def plan_watches(
        self,
        request_watches: Sequence[Watch],
        saes: Mapping[str, SaeFacts],
        profile_features: Mapping[str, tuple[int, ...]],
    ) -> WatchPlan:
        """`asked`: by the request itself; `saes`: those attached; `profile`: what the active one would have watched."""
        own = {one.sae: one for one in self.config.watch} if self.config.on else {}
        followed = profile_features if self.config.on and self.config.follow_profile else {}
        if not request_watches and not own and not followed:
            return WatchPlan()
        wanted = [
            _add_profile_features(own.get(sae), sae, followed.get(sae, ())).to_engine_watch(facts)
            for sae, facts in saes.items()
            if sae in own or sae in followed
        ]
        return merge_watches(request_watches, [watch for watch in wanted if watch.features or watch.top_k])

    def start_recording(self, request: RecordedRequest, on_close: Callable[[RequestRow], object]) -> RequestRecorder:
        """From here until it is closed, the request is open; then what came of it is told."""

        def closed(row: RequestRow) -> None:
            self.open_requests.pop(request.id, None)
            on_close(row)

        recording = RequestRecorder(request, self.history, self._events, self._meter, self._text_policy, closed)
        self.open_requests[request.id] = recording
        return recording


def _add_profile_features(sae_watch: SaeWatch | None, sae: str, features: tuple[int, ...]) -> SaeWatch:
    """The monitor's, and the profile's features."""
    if sae_watch is None:
        return SaeWatch(sae=sae, features=features)
    return SaeWatch(
        sae=sae,
        features=(*sae_watch.features, *features),
        top_k=sae_watch.top_k,
        tokens=sae_watch.tokens,
        when=sae_watch.when,
        sample_every=sae_watch.sample_every,
    )
