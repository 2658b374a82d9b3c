"""The attached SAEs: hook rows of each sequence, preparation of passes, readings and receipts from them.

A detached SAE accepts no new sequence; its hook is removed when the last sequence that uses it has finished. Another
SAE may have its name or hook point by then: no sequence has rows of both, and row 0 of a hook changes nothing.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field
from itertools import zip_longest

from msgspec.structs import replace
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from millm.engine.messages import IndexedValues, Reading, SaeFacts, SteeringReceipt
from millm.engine.scheduler import ScheduledRow, Sequence
from millm.errors import InvalidSteering, MillmError, SaeDetached, SaeMismatch, SaeNotFound
from millm.sae.hook_step import HookOutput, HookRow, TokenSpan, offsets_to_sample, offsets_to_watch
from millm.sae.hooks import HookPoint
from millm.sae.steering import SaeSteering, Steering, Watch
from millm.sae.steering_hook import SteeringHook

ValueRows = list[tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Attachment:
    """Compared by identity: an SAE that is attached again is another attachment."""

    hook: SteeringHook
    hook_point: HookPoint
    handle: RemovableHandle
    facts: SaeFacts


@dataclass
class SequenceHookState:
    """A sequence's hook rows and record of steering, by position, so that a repeated pass counts once."""

    rows: dict[Attachment, int]  # Row in the tables of each hook that the sequence uses
    steer_mask: list[bool] = field(default_factory=list)  # Per position, whether a delta was added
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """‖delta‖ / ‖x‖ per SAE and position; 0 without a delta."""
    num_read_tokens: int = 0  # Readings of earlier positions have been collected
    degraded: str | None = None  # Why steering or watching was turned off

    @property
    def attachments(self) -> dict[str, Attachment]:
        return {attached.facts.sae: attached for attached in self.rows}

    def record_steered(self, start: int, steer_mask: list[bool]) -> None:
        """Positions steered once stay marked, also if the sequence restarts without steering."""
        positions = slice(start, start + len(steer_mask))
        before = self.steer_mask[positions]
        self.steer_mask[positions] = [any(pair) for pair in zip_longest(steer_mask, before, fillvalue=False)]


class AttachedSaes:
    def __init__(self, special_ids: frozenset[int] = frozenset()) -> None:
        self._attachments: dict[str, Attachment] = {}
        self._detaching: list[Attachment] = []  # Detached but still in use
        self.special_ids = special_ids
        self.disabled_reason: str | None = None  # Why every SAE was turned off; reset when one is attached

    def check_free(self, sae: str, point: HookPoint, replaces: str | None = None) -> None:
        """Raises SaeMismatch if another SAE than `replaces` has the name or the hook point."""
        for name, attached in self._attachments.items():
            if name == replaces:
                continue
            if name == sae:
                raise SaeMismatch(f"an SAE named {sae!r} is already attached; give this one another name")
            if attached.hook_point.name == point.name:
                raise SaeMismatch(f"{point.name} already has SAE {name!r} attached; a hook point takes one")

    def attach(self, hook: SteeringHook, point: HookPoint, facts: SaeFacts, replaces: str | None = None) -> None:
        """Register the hook, then detach `replaces`. Raises SaeMismatch without any change."""
        self.check_free(facts.sae, point, replaces)
        if replaces in self._attachments:
            self.detach(replaces)
        self._attachments[facts.sae] = Attachment(hook, point, point.register(hook), facts)
        self.disabled_reason = None

    def detach(self, sae: str) -> None:
        """Accept no new sequence; `remove_unused_hooks` removes the hook. Raises SaeNotFound."""
        if sae not in self._attachments:
            raise self._not_found_error(sae)
        self._detaching.append(self._attachments.pop(sae))

    def get(self, sae: str, attachment_id: str = "") -> Attachment:
        """Raises SaeNotFound, or SaeDetached if `attachment_id` is another attachment's."""
        if sae not in self._attachments and not attachment_id and not self.disabled_reason:
            raise self._not_found_error(sae)
        return self._resolve(sae, attachment_id)

    def _not_found_error(self, sae: str) -> SaeNotFound:
        return SaeNotFound(f"no SAE named {sae!r} is attached; there are: {', '.join(self._attachments) or 'none'}")

    def get_steerable(self, sae_steering: SaeSteering) -> Attachment:
        """Raises SaeNotFound, SaeDetached or InvalidSteering."""
        attached = self.get(sae_steering.sae, sae_steering.attachment)
        _check_hook_row(attached.facts, HookRow(sae_steering.features))
        return attached

    def remove_unused_hooks(self) -> bool:
        """Remove the hooks of detached SAEs that no sequence uses. False if none was removed."""
        unused = [attached for attached in self._detaching if attached.hook.is_unused]
        for attached in unused:
            attached.handle.remove()
            self._detaching.remove(attached)
        return bool(unused)

    def remove_all(self) -> None:
        for attached in self._hooked_attachments:
            attached.handle.remove()
        self._attachments.clear()
        self._detaching.clear()

    def active_hooks(self) -> list[SteeringHook]:
        return [attached.hook for attached in self._hooked_attachments]

    @property
    def _hooked_attachments(self) -> list[Attachment]:
        return [*self._attachments.values(), *self._detaching]

    def has_room(self, sequence: Sequence) -> bool:
        """True if the hooks have table rows for its steering and watches; SAEs that are not attached do not count."""
        rows = requested_hook_rows(sequence).items()
        return all(self._attachments[sae].hook.has_room(row) for sae, row in rows if sae in self._attachments)

    def start(self, sequence: Sequence) -> None:
        """Acquire a table row in every hook that the sequence steers or watches; `finish` releases them.

        Raises InvalidSteering, SaeDetached or InsufficientMemory.
        """
        sequence.hook_state = SequenceHookState({})
        self._drop_missing_steering(sequence)
        sequence.watch = tuple(watch for watch in sequence.watch if not watch.optional or self._is_attached(watch))
        self._acquire_rows(sequence, sequence.hook_state.rows, {})

    def _drop_missing_steering(self, sequence: Sequence) -> None:
        """Drop the active steering from a sequence that follows it, if one of its SAEs is not attached.

        This is temporary when an SAE was detached or replaced: `SetActiveSteering` comes next.
        """
        active = sequence.steering if sequence.request.follows_active else None
        if active and not all(self._is_attached(item) for item in active.by_sae):
            sequence.steering = None
            sequence.hook_state.degraded = self.disabled_reason

    def change_steering(self, sequence: Sequence, steering: Steering | None) -> None:
        """Steer the sequence by `steering` from its next token. Raises as `start` does, without any change."""
        state: SequenceHookState | None = sequence.hook_state
        before, sequence.steering = sequence.steering, steering
        if state is None:
            return
        self._drop_missing_steering(sequence)
        rows: dict[Attachment, int] = {}
        try:
            self._acquire_rows(sequence, rows, self._attachments_to_retain(state, steering))
        except MillmError:
            sequence.steering = before
            self._release(rows)
            raise
        self._release(state.rows)
        state.rows = rows

    def _attachments_to_retain(self, state: SequenceHookState, steering: Steering | None) -> dict[str, Attachment]:
        """Watched SAEs survive a detach; steering SAEs must be attached now."""
        current = {item.sae for item in steering.by_sae if item.sae in self._attachments} if steering else set()
        return {sae: attached for sae, attached in state.attachments.items() if sae not in current}

    def inherit_prefix(self, sequence: Sequence, prefix_state: object, cached: int) -> None:
        """Copy the record of the first `cached` tokens from the sequence that computed them."""
        if isinstance(prefix_state, SequenceHookState):
            sequence.hook_state.record_steered(0, prefix_state.steer_mask[:cached])
            for sae, ratios in prefix_state.ratios.items():
                sequence.hook_state.ratios[sae] = ratios[:cached]

    def finish(self, sequence: Sequence) -> SteeringReceipt | None:
        """Release the hook rows; → receipt of the applied steering, or None without any."""
        state: SequenceHookState | None = sequence.hook_state
        if state is None:
            return None
        self._release(state.rows)
        sequence.hook_state = None
        if sequence.steering is None and not any(state.steer_mask) and state.degraded is None:
            return None
        steered = sum(state.steer_mask)
        mean = max((sum(ratios) / max(steered, 1) for ratios in state.ratios.values()), default=0.0)
        return SteeringReceipt(
            fingerprint=sequence.steering.fingerprint if sequence.steering else "",
            tokens_steered=steered,
            delta_norm_ratio=mean,
            degraded=state.degraded,
        )

    def steer_mask(self, sequence: Sequence, start: int, tokens: Sequence_[int]) -> list[bool]:
        """Per token from position `start` on, whether the sequence's steering applies."""
        steering = sequence.steering
        if steering is None:
            return [False] * len(tokens)
        prompt_length = len(sequence.request.prompt)
        constrained_from = prompt_length - 1 if steering.skip_constrained and sequence.request.grammar else sys.maxsize
        return [
            position < constrained_from and steering.applies(position, token, prompt_length, self.special_ids)
            for position, token in enumerate(tokens, start=start)
        ]

    def prepare(self, rows: Sequence_[ScheduledRow]) -> None:
        """Set every hook for one forward pass over `rows`, which have equal numbers of tokens."""
        masks = [self.steer_mask(row.sequence, row.start, row.tokens) for row in rows]
        spans = [token_span(row) for row in rows]
        for attached in self._hooked_attachments:
            attached.hook.prepare([row.sequence.hook_state.rows.get(attached, 0) for row in rows], masks, spans)

    def prepare_unsteered(self) -> None:
        """Let every hook leave the next pass unchanged."""
        self.prepare(())

    def collect(self, rows: Sequence_[ScheduledRow]) -> list[tuple[Reading, ...]]:
        """Called after the pass: record the steering; → readings per row."""
        for row in rows:
            row.sequence.hook_state.record_steered(row.start, self.steer_mask(row.sequence, row.start, row.tokens))
        readings: list[list[Reading]] = [[] for _ in rows]
        for attached in self._hooked_attachments:
            self._collect_ratio(attached, rows)
            for index, row in enumerate(rows):
                if attached in row.sequence.hook_state.rows:
                    readings[index] += row_readings(attached.facts.sae, attached.hook, index, row)
        for row in rows:
            state: SequenceHookState = row.sequence.hook_state
            state.num_read_tokens = max(state.num_read_tokens, row.start + len(row.tokens))
        return [tuple(of_row) for of_row in readings]

    def _collect_ratio(self, attachment: Attachment, rows: Sequence_[ScheduledRow]) -> None:
        ratio = attachment.hook.output.ratio
        ratios = None if ratio is None else ratio.tolist()
        for index, row in enumerate(rows):
            if row.sequence.steering and attachment in row.sequence.hook_state.rows:
                new = ratios[index] if ratios else [0.0] * len(row.tokens)
                recorded = row.sequence.hook_state.ratios[attachment.facts.sae]
                recorded += [0.0] * (row.start - len(recorded))
                recorded[row.start : row.start + len(new)] = new

    def disable_top_k(self, sequences: Iterable[Sequence], reason: str) -> bool:
        """False if none of the sequences had a `top_k`."""
        return self._reduce_watches(
            sequences, reason, lambda watch: replace(watch, top_k=0) if watch.features else None
        )

    def disable_watching(self, sequences: Iterable[Sequence], reason: str) -> bool:
        return self._reduce_watches(sequences, reason, lambda _watch: None)

    def _reduce_watches(
        self, sequences: Iterable[Sequence], reason: str, reduce: Callable[[Watch], Watch | None]
    ) -> bool:
        changed = False
        for sequence in sequences:
            watch = tuple(reduced for watch in sequence.watch if (reduced := reduce(watch)))
            if sequence.hook_state and watch != sequence.watch:
                own = sequence.hook_state.attachments
                self._release(sequence.hook_state.rows)
                sequence.watch = watch
                sequence.hook_state.degraded = reason
                self._acquire_rows(sequence, sequence.hook_state.rows, own)
                changed = True
        return changed

    def detach_all(self, sequences: Iterable[Sequence], reason: str) -> bool:
        """Detach every SAE; sequences continue unsteered and unwatched. False if none is attached."""
        if not self._hooked_attachments:
            return False
        for sequence in sequences:
            state: SequenceHookState | None = sequence.hook_state
            if state and state.rows:
                state.rows.clear()
                state.degraded = reason
                sequence.steering, sequence.watch = None, ()
        self.remove_all()
        self.disabled_reason = reason
        return True

    def using_detached(self, sequences: Iterable[Sequence]) -> list[Sequence]:
        detached = set(self._detaching)
        return [
            sequence for sequence in sequences if sequence.hook_state and detached & sequence.hook_state.rows.keys()
        ]

    def _acquire_rows(
        self, sequence: Sequence, rows: dict[Attachment, int], retained: Mapping[str, Attachment]
    ) -> None:
        """`retained`: attachments to use even if they are detached."""
        ids = _requested_attachment_ids(sequence)
        for sae, row in requested_hook_rows(sequence).items():
            attached = retained.get(sae) or self._resolve(sae, ids[sae])
            _check_hook_row(attached.facts, row)
            rows[attached] = attached.hook.acquire(row)

    def _resolve(self, sae: str, attachment_id: str) -> Attachment:
        attached = self._attachments.get(sae)
        if attached is None and self.disabled_reason:
            raise SaeDetached(self.disabled_reason)
        if attached is None and not attachment_id:
            raise InvalidSteering(f"no SAE named {sae!r} is attached")
        if attached is None or attachment_id not in ("", attached.facts.id):
            raise SaeDetached(f"SAE {sae!r} was detached, or attached anew, while this request was read; ask again")
        return attached

    def _is_attached(self, item: SaeSteering | Watch) -> bool:
        attached = self._attachments.get(item.sae)
        return attached is not None and item.attachment in ("", attached.facts.id)

    def _release(self, rows: dict[Attachment, int]) -> None:
        for attached, index in rows.items():
            attached.hook.release(index)
        rows.clear()


def requested_hook_rows(sequence: Sequence) -> dict[str, HookRow]:
    """By SAE."""
    features = {item.sae: item.features for item in sequence.steering.by_sae} if sequence.steering else {}
    watches = {watch.sae: watch for watch in sequence.watch}
    return {sae: HookRow(features.get(sae, ()), watches.get(sae)) for sae in {**features, **watches}}


def _requested_attachment_ids(sequence: Sequence) -> dict[str, str]:
    """By SAE, the attachment of that name when the request was parsed."""
    by_sae = sequence.steering.by_sae if sequence.steering else ()
    items: tuple[SaeSteering | Watch, ...] = (*sequence.watch, *by_sae)
    return {item.sae: item.attachment for item in items}


def _check_hook_row(facts: SaeFacts, row: HookRow) -> None:
    if row.features and not facts.steerable:
        raise InvalidSteering(f"SAE {facts.sae!r} can be watched but not steered: its output is not this hook point")
    for index in (*(feature.index for feature in row.features), *row.watched_features):
        if not 0 <= index < facts.features:
            raise InvalidSteering(f"feature {index} is not in 0..{facts.features - 1} of SAE {facts.sae!r}")


def token_span(row: ScheduledRow) -> TokenSpan:
    return TokenSpan(row.start, len(row.tokens), len(row.sequence.request.prompt))


def row_readings(sae: str, hook: SteeringHook, index: int, row: ScheduledRow) -> list[Reading]:
    """Readings of row `index` of the last pass, at the tokens of its watch that were not read before."""
    watch = next((watch for watch in row.sequence.watch if watch.sae == sae), None)
    if watch is None:
        return []
    span, first = token_span(row), row.sequence.hook_state.num_read_tokens - row.start
    offsets = [offset for offset in offsets_to_watch(watch, span) if offset >= first]
    sampled = [offset for offset in offsets_to_sample(watch, span, hook.sample_every) if offset >= first]
    values, top = _select_values(hook.output, index, watch, offsets, sampled)
    readings = [
        Reading(sae, row.start + offset, at_token, top.get(offset, ()))
        for offset, at_token in zip(offsets, values, strict=True)
    ]
    if watch.when != "both":
        return readings
    steered = hook.output.after if _is_steered(row, sae) else None
    after, top_after = _select_values(steered or hook.output, index, watch, offsets, sampled)
    return [
        replace(reading, after=at_token, top_after=top_after.get(offset, ()))
        for reading, offset, at_token in zip(readings, offsets, after, strict=True)
    ]


def _is_steered(row: ScheduledRow, sae: str) -> bool:
    """True if this SAE steers the row; otherwise its readings before and after steering are the same."""
    steering = row.sequence.steering
    return steering is not None and any(item.sae == sae and item.features for item in steering.by_sae)


def _select_values(
    output: HookOutput, index: int, watch: Watch, offsets: list[int], sampled_offsets: list[int]
) -> tuple[ValueRows, dict[int, IndexedValues]]:
    """Activations of the watched features per offset, and the top k features by sampled offset."""
    values = _select_rows(output.watched, index, offsets, len(watch.features))
    top_values = _select_rows(output.top_values, index, sampled_offsets, watch.top_k)
    top_indices = _select_rows(output.top_indices, index, sampled_offsets, watch.top_k)
    top = {
        offset: tuple((int(j), a) for j, a in zip(i, t, strict=True))
        for offset, i, t in zip(sampled_offsets, top_indices, top_values, strict=True)
    }
    return values, top


def _select_rows(table: Tensor | None, index: int, offsets: list[int], width: int) -> ValueRows:
    """`table [B, T, ≥ width]` → `width` columns of row `index` at each offset."""
    if table is None or not offsets:
        return [() for _ in offsets]
    return [tuple(row) for row in table[index, offsets, :width].tolist()]
