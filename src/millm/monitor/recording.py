"""One request while it is answered: what is watched goes into the history and to those who listen, then its row."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msgspec import UNSET

from millm.engine.messages import Reading, Receipt
from millm.events import Activations, Events, RequestEnded
from millm.metrics.meter import Meter
from millm.monitor.history import ROW_BYTES, Entry, History, Texts
from millm.monitor.rows import End, OpenRequest, RequestRow, Source, WatchedSae
from millm.monitor.track import Track
from millm.monitor.watching import Watching

TextOf = Callable[[int], str]
"""Of a token, by its position in prompt + completion."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is known of a request before it is answered."""

    id: str
    endpoint: str
    model: str
    profile: str | None
    source: Source
    streamed: bool
    prompts: tuple[int, ...]
    """Tokens of each choice's prompt, or of each input."""
    prompt_tokens: int
    watching: Watching
    sequences: tuple[str, ...]
    """What the engine calls its parts."""
    read: Callable[[], tuple[str, ...]]
    """→ the different prompts, or the inputs, as the model reads them."""
    body: bytes
    """As it came."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a choice, or all the inputs, ended."""

    end: End
    tokens: int = 0
    cached_tokens: int = 0
    receipt: Receipt | None = None


class Recording:
    def __init__(
        self,
        asked: Asked,
        history: History,
        events: Events,
        meter: Meter,
        texts: str,
        closed: Callable[[RequestRow], object],
    ) -> None:
        """`texts`: `answers`, `all` or `off`, as the setting `history_texts`; `closed` is called at its end."""
        self._asked, self._history, self._events, self._texts = asked, history, events, texts
        self._meter, self._closed = meter, closed
        self._began, self._clock = time.time(), time.monotonic()
        self._first_token: float | None = None
        self._last_tokens: dict[int, float] = {}
        """Choice → when its last token came, by the clock."""
        self._features = {watch.sae: watch.features for watch in asked.watching.kept}
        self._tracks: dict[tuple[int, str, bool], Track] = {}
        self._bytes = ROW_BYTES if history.take(ROW_BYTES) else 0
        self._is_cut = False
        self._outcomes: list[Outcome] = []
        self._written: list[list[str]] | None = None if texts == "off" else [[] for _ in asked.prompts]

    @property
    def sequences(self) -> tuple[str, ...]:
        return self._asked.sequences

    def so_far(self) -> OpenRequest:
        asked = self._asked
        return OpenRequest(
            id=asked.id,
            endpoint=asked.endpoint,
            model=asked.model,
            profile=asked.profile,
            client=asked.source.client,
            task=asked.source.task,
            began=self._began,
            seconds=time.monotonic() - self._clock,
            first_token_seconds=self._first_token,
            streamed=asked.streamed,
            choices=len(asked.prompts),
            prompt_tokens=asked.prompt_tokens,
        )

    def first_token(self) -> None:
        if self._first_token is None:
            self._first_token = time.monotonic() - self._clock
            self._meter.first_token(self._first_token)

    def token(self, index: int) -> None:
        """One has come, of this choice."""
        now, before = time.monotonic(), self._last_tokens.get(index)
        self._last_tokens[index] = now
        self._meter.token(None if before is None else now - before)

    def saw(self, index: int, readings: Iterable[Reading], text_of: TextOf) -> None:
        """Readings as the engine tells them, of one choice or input."""
        for reading in self._asked.watching.of_monitor(readings, self._asked.prompts[index]):
            text = text_of(reading.position)
            if len(self._events):
                self._tell(index, reading, text)
            self._keep(index, reading, text)

    def wrote(self, index: int, text: str) -> None:
        """More of one choice's answer."""
        if self._written is not None and self._bytes and text:
            self._written = self._written if self._takes(len(text)) else None
            if self._written is not None:
                self._written[index].append(text)

    def ended(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)

    def close(self, end: End | None = None, error: str | None = None) -> None:
        """`end`: how all of it ended, where that was not each choice's own end."""
        row = self._row(end or (self._outcomes[0].end if self._outcomes else "failed"), error)
        self._closed(row)
        self._meter.ended(row.endpoint, error or row.end, row.seconds)
        if self._outcomes or self._last_tokens:
            self._meter.read(row.prompt_tokens, row.cached_tokens)
        if self._bytes:
            texts = self._texts_kept()
            self._history.add(Entry(row, tuple(self._tracks.values()), self._bytes, texts))
        self._events.publish(RequestEnded(request=row))

    def _texts_kept(self) -> Texts:
        prompts, body = None, None
        if self._texts == "all" and self._takes(4 * self._asked.prompt_tokens + len(self._asked.body)):
            prompts, body = self._asked.read(), self._asked.body.decode(errors="replace")
        is_embedded = any(outcome.end == "embedded" for outcome in self._outcomes)
        wrote = None if is_embedded or not (self._outcomes or any(self._written or ())) else self._written
        answers = None if wrote is None else tuple("".join(parts) for parts in wrote)
        return Texts(prompts=prompts, answers=answers, body=body)

    def _takes(self, more: int) -> bool:
        """Room for so many bytes more of this request."""
        if not self._bytes or not self._history.take(more):
            return False
        self._bytes += more
        return True

    def _tell(self, index: int, reading: Reading, text: str) -> None:
        self._events.publish(
            Activations(
                endpoint=self._asked.endpoint,
                request_id=self._asked.id,
                index=index,
                position=reading.position,
                token=text,
                sae=reading.sae,
                features=self._features[reading.sae],
                values=reading.values,
                top=reading.top or UNSET,
                after=reading.after or UNSET,
                top_after=reading.top_after or UNSET,
            )
        )

    def _keep(self, index: int, reading: Reading, text: str) -> None:
        features = self._features[reading.sae] if reading.values else ()
        numbers = len(reading.values) + len(reading.after) + 2 * (len(reading.top) + len(reading.top_after))
        if self._is_cut or not self._takes(Track.cost(numbers)):
            self._is_cut = True
            return
        prompt = self._asked.prompts[index]
        place = (index, reading.sae, bool(features))  # short of memory, the engine gives up some of it on the way
        track = self._tracks.setdefault(place, Track(index, reading.sae, features, prompt))
        kept = text if self._texts == "all" or (self._texts == "answers" and reading.position >= prompt) else None
        track.add(reading.position, kept, reading.values, reading.top, reading.after, reading.top_after)

    def _row(self, end: End, error: str | None) -> RequestRow:
        receipts = [outcome.receipt for outcome in self._outcomes if outcome.receipt]
        steered = sum(receipt.tokens_steered for receipt in receipts)
        ratios = sum(receipt.delta_norm_ratio * receipt.tokens_steered for receipt in receipts)
        asked = self._asked
        return RequestRow(
            id=asked.id,
            endpoint=asked.endpoint,
            model=asked.model,
            profile=asked.profile,
            client=asked.source.client,
            task=asked.source.task,
            began=self._began,
            seconds=time.monotonic() - self._clock,
            first_token_seconds=self._first_token,
            streamed=asked.streamed,
            end=end,
            error=error,
            choices=len(asked.prompts),
            prompt_tokens=asked.prompt_tokens,
            completion_tokens=sum(outcome.tokens for outcome in self._outcomes),
            cached_tokens=min(sum(outcome.cached_tokens for outcome in self._outcomes), asked.prompt_tokens),
            steering=receipts[0].fingerprint if receipts else None,
            tokens_steered=steered,
            delta_norm_ratio=ratios / steered if steered else 0.0,
            degraded=next((receipt.degraded for receipt in receipts if receipt.degraded), None),
            watched=self._watched(),
            is_cut=self._is_cut and self._history.size > 0,
        )

    def _watched(self) -> tuple[WatchedSae, ...]:
        return tuple(
            WatchedSae(
                sae=watch.sae,
                features=watch.features,
                top_k=watch.top_k,
                tokens=sum(len(track) for track in self._tracks.values() if track.sae == watch.sae),
            )
            for watch in self._asked.watching.kept
        )
