"""Every attached SAE's tap, worked together: rows for a step, readings and receipts out of it.

An SAE that is detached takes nobody new; what was begun with it ends with it, and then its hook goes. Another may be on
the same hook point, and under the same name, by then: no sequence has rows of both, and row 0 changes nothing.

What a tap read of one row in the last pass, as plain values: at the tokens its watch asks for, once each.
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

from millm.engine.messages import Reading, SaeFacts, SteeringReceipt
from millm.engine.scheduler import ScheduledRow, Sequence
from millm.errors import InvalidSteering, MillmError, SaeDetached, SaeMismatch, SaeNotFound
from millm.sae.hook_step import HookOutput, HookRow, TokenSpan, offsets_to_sample, offsets_to_watch
from millm.sae.hooks import HookPoint
from millm.sae.steering import SaeSteering, Steering, Watch
from millm.sae.steering_hook import SteeringHook

ValueRows = list[tuple[float, ...]]
TopByOffset = dict[int, tuple[tuple[int, float], ...]]
"""By offset: (feature, activation), largest first."""


def token_span(row: ScheduledRow) -> TokenSpan:
    return TokenSpan(row.start, len(row.tokens), len(row.sequence.request.prompt))


def row_readings(sae: str, hook: SteeringHook, index: int, row: ScheduledRow) -> list[Reading]:
    """Of row `index` of the pass. A row that no steering touches reads after it what it reads before."""
    watch = next((watch for watch in row.sequence.watch if watch.sae == sae), None)
    if watch is None:
        return []
    span, read = token_span(row), row.sequence.hook_state.read
    wanted = [offset for offset in offsets_to_watch(watch, span) if row.start + offset >= read]
    sampled = [offset for offset in offsets_to_sample(watch, span, hook.sample_every) if row.start + offset >= read]
    values, top = _select_values(hook.output, index, watch, wanted, sampled)
    readings = [
        Reading(sae, row.start + offset, some, top.get(offset, ())) for offset, some in zip(wanted, values, strict=True)
    ]
    if watch.when != "both":
        return readings
    steered = hook.output.after if _is_steered(row, sae) else None
    after, top_after = _select_values(steered or hook.output, index, watch, wanted, sampled)
    return [
        replace(reading, after=some, top_after=top_after.get(offset, ()))
        for reading, offset, some in zip(readings, wanted, after, strict=True)
    ]


def _is_steered(row: ScheduledRow, sae: str) -> bool:
    """By this SAE: after another's steering, a reading before this hook's is the same as one after it."""
    steering = row.sequence.steering
    return steering is not None and any(tap.sae == sae and tap.features for tap in steering.by_sae)


def _select_values(
    output: HookOutput, index: int, watch: Watch, offsets: list[int], sampled_offsets: list[int]
) -> tuple[ValueRows, TopByOffset]:
    values = _select_rows(output.watched, index, offsets, len(watch.features))
    top_values = _select_rows(output.top_values, index, sampled_offsets, watch.top_k)
    top_indices = _select_rows(output.top_indices, index, sampled_offsets, watch.top_k)
    top = {
        offset: tuple((int(j), a) for j, a in zip(i, t, strict=True))
        for offset, i, t in zip(sampled_offsets, top_indices, top_values, strict=True)
    }
    return values, top


def _select_rows(table: Tensor | None, index: int, offsets: list[int], width: int) -> ValueRows:
    """`table [B, T, ≥ width]` → the wanted tokens of row `index`, `width` columns each."""
    if table is None or not offsets:
        return [() for _ in offsets]
    return [tuple(row) for row in table[index, offsets, :width].tolist()]


@dataclass(frozen=True, eq=False)
class Attachment:
    """Equal to nothing but itself: an SAE that is attached again is another one."""

    hook: SteeringHook
    hook_point: HookPoint
    handle: RemovableHandle
    facts: SaeFacts


@dataclass
class SequenceHookState:
    """What the taps remember of one sequence. By position, so that a pass that is run again counts once."""

    rows: dict[Attachment, int]
    """Table row in each tap that it uses."""
    steer_mask: list[bool] = field(default_factory=list)
    """Was a delta added there?"""
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """‖delta‖ / ‖x‖ per SAE; 0 where nothing was added."""
    read: int = 0
    """Readings of earlier positions have been reported."""
    degraded: str | None = None
    """Why it does not get what it asked for any more."""

    @property
    def attachments(self) -> dict[str, Attachment]:
        """Those it uses, by name."""
        return {attached.facts.sae: attached for attached in self.rows}

    def mark(self, start: int, steer_mask: list[bool]) -> None:
        """A token that was steered once stays so, also where the sequence began again and is not steered any more."""
        places = slice(start, start + len(steer_mask))
        before = self.steer_mask[places]
        self.steer_mask[places] = [any(both) for both in zip_longest(steer_mask, before, fillvalue=False)]


class AttachedSaes:
    def __init__(self, special_ids: frozenset[int] = frozenset()) -> None:
        self._attachments: dict[str, Attachment] = {}
        self._detaching: list[Attachment] = []
        """Detached, and still in use."""
        self.special_ids = special_ids
        self.disabled_reason: str | None = None
        """Why every SAE was turned off, if they were; until one is attached."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the SAEs that are attached."""
        return tuple(self._attachments)

    def check_free(self, sae: str, point: HookPoint, replaces: str | None = None) -> None:
        """Raises SaeMismatch if the name or the hook point is taken by another than the one that is replaced."""
        for name, attached in self._attachments.items():
            if name == replaces:
                continue
            if name == sae:
                raise SaeMismatch(f"an SAE named {sae!r} is already attached; give this one another name")
            if attached.hook_point.name == point.name:
                raise SaeMismatch(f"{point.name} already has SAE {name!r} attached; a hook point takes one")

    def attach(self, hook: SteeringHook, point: HookPoint, facts: SaeFacts, replaces: str | None = None) -> None:
        """Raises SaeMismatch; what it replaces is detached then and not before."""
        self.check_free(facts.sae, point, replaces)
        if replaces in self._attachments:
            self.detach(replaces)
        self._attachments[facts.sae] = Attachment(hook, point, point.register(hook), facts)
        self.disabled_reason = None

    def detach(self, sae: str) -> None:
        """Nothing new uses it; its hook goes with the next `sweep` that finds it unused. Raises SaeNotFound."""
        if sae not in self._attachments:
            raise self._not_found_error(sae)
        self._detaching.append(self._attachments.pop(sae))

    def get(self, sae: str, attachment_id: str = "") -> Attachment:
        """`meant`: the attachment's id, if it matters. Raises SaeNotFound or SaeDetached."""
        if sae not in self._attachments and not attachment_id and not self.disabled_reason:
            raise self._not_found_error(sae)
        return self._resolve(sae, attachment_id)

    def _not_found_error(self, sae: str) -> SaeNotFound:
        return SaeNotFound(f"no SAE named {sae!r} is attached; there are: {', '.join(self._attachments) or 'none'}")

    def get_steerable(self, sae_steering: SaeSteering) -> Attachment:
        """Whose tap this would be. Raises SaeNotFound, SaeDetached or InvalidSteering."""
        attached = self.get(sae_steering.sae, sae_steering.attachment)
        _check_hook_row(attached.facts, HookRow(sae_steering.features))
        return attached

    def remove_unused_hooks(self) -> bool:
        """Take off the hooks of what is detached and out of use; False if there was none."""
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
        """Of every hook that a pass goes through."""
        return [attached.hook for attached in self._hooked_attachments]

    @property
    def _hooked_attachments(self) -> list[Attachment]:
        return [*self._attachments.values(), *self._detaching]

    def has_room(self, sequence: Sequence) -> bool:
        """Are there table rows for what it steers and watches? True also for what can never be."""
        wanted = requested_hook_rows(sequence)
        return all(self._attachments[sae].hook.has_room(row) for sae, row in wanted.items() if sae in self._attachments)

    def start(self, sequence: Sequence) -> None:
        """Take a table row in every tap the request steers or watches; `finish` gives back those that were taken.

        Raises InvalidSteering, SaeDetached or InsufficientMemory.
        """
        sequence.hook_state = SequenceHookState({})
        self._drop_missing_steering(sequence)
        sequence.watch = tuple(watch for watch in sequence.watch if not watch.optional or self._can_watch(watch))
        self._acquire_rows(sequence, sequence.hook_state.rows, {})

    def _drop_missing_steering(self, sequence: Sequence) -> None:
        """Whoever only follows what is active goes on without, while its SAE is off or about to be followed by another.

        What is active changes with what is attached: the API process says so right after, and it has that then.
        """
        if sequence.request.follows_active and sequence.steering and not self._can_steer(sequence.steering):
            sequence.steering = None
            sequence.hook_state.degraded = self.disabled_reason

    def change_steering(self, sequence: Sequence, steering: Steering | None) -> None:
        """From its next token on the sequence has this steering. Raises as `start` does; nothing has changed then."""
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
        """What it goes on watching, also where that is detached; what steers it now is what is attached now."""
        steered = {tap.sae for tap in steering.by_sae} if steering else set()
        return {
            sae: own for sae, own in state.attachments.items() if sae not in steered or sae not in self._attachments
        }

    def inherit_prefix(self, sequence: Sequence, prefix_state: object, cached: int) -> None:
        """The sequence goes on from what another one computed: what was done there was done for it too."""
        if isinstance(prefix_state, SequenceHookState):
            sequence.hook_state.mark(0, prefix_state.steer_mask[:cached])
            for sae, ratios in prefix_state.ratios.items():
                sequence.hook_state.ratios[sae] = ratios[:cached]

    def finish(self, sequence: Sequence) -> SteeringReceipt | None:
        """Give the rows back; → what was really done to the sequence."""
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
        """Per token from position `start` on: does the sequence's steering apply there?"""
        steering = sequence.steering
        if steering is None:
            return [False] * len(tokens)
        prompt_length = len(sequence.request.prompt)
        decided_from = prompt_length - 1 if steering.skip_constrained and sequence.request.grammar else sys.maxsize
        return [
            position < decided_from and steering.applies(position, token, prompt_length, self.special_ids)
            for position, token in enumerate(tokens, start=start)
        ]

    def prepare(self, rows: Sequence_[ScheduledRow]) -> None:
        """Set every tap for one forward pass over `rows` (all of one length)."""
        keep = [self.steer_mask(row.sequence, row.start, row.tokens) for row in rows]
        spans = [token_span(row) for row in rows]
        for attached in self._hooked_attachments:
            attached.hook.prepare([row.sequence.hook_state.rows.get(attached, 0) for row in rows], keep, spans)

    def prepare_unsteered(self) -> None:
        """Let the next pass go through untouched: nothing of the last step is left in a tap."""
        self.prepare(())

    def collect(self, rows: Sequence_[ScheduledRow]) -> list[tuple[Reading, ...]]:
        """After the pass: add to the receipts; → readings per row."""
        for row in rows:
            row.sequence.hook_state.mark(row.start, self.steer_mask(row.sequence, row.start, row.tokens))
        readings: list[list[Reading]] = [[] for _ in rows]
        for attached in self._hooked_attachments:
            self._collect_ratio(attached, rows)
            for index, row in enumerate(rows):
                if attached in row.sequence.hook_state.rows:
                    readings[index] += row_readings(attached.facts.sae, attached.hook, index, row)
        for row in rows:
            row.sequence.hook_state.read = max(row.sequence.hook_state.read, row.start + len(row.tokens))
        return [tuple(found) for found in readings]

    def _collect_ratio(self, attachment: Attachment, rows: Sequence_[ScheduledRow]) -> None:
        ratio = attachment.hook.output.ratio
        ratios = None if ratio is None else ratio.tolist()
        for index, row in enumerate(rows):
            if row.sequence.steering and attachment in row.sequence.hook_state.rows:
                found = ratios[index] if ratios else [0.0] * len(row.tokens)
                known = row.sequence.hook_state.ratios[attachment.facts.sae]
                known += [0.0] * (row.start - len(known))
                known[row.start : row.start + len(found)] = found

    # ------------------------------------------------------------------------------------------------ giving up

    def disable_top_k(self, sequences: Iterable[Sequence], reason: str) -> bool:
        """No more `top_k` for these; False if none of them had it."""
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
            watch = tuple(kept for asked in sequence.watch if (kept := reduce(asked)))
            if sequence.hook_state and watch != sequence.watch:
                own = sequence.hook_state.attachments
                self._release(sequence.hook_state.rows)
                sequence.watch = watch
                sequence.hook_state.degraded = reason
                self._acquire_rows(sequence, sequence.hook_state.rows, own)
                changed = True
        return changed

    def detach_all(self, sequences: Iterable[Sequence], reason: str) -> bool:
        """Every SAE off; whoever was steered or watched goes on without, and its receipt says so."""
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
        """Those of `sequences` that still use an SAE that is detached."""
        left = set(self._detaching)
        return [sequence for sequence in sequences if sequence.hook_state and left & sequence.hook_state.rows.keys()]

    def _acquire_rows(
        self, sequence: Sequence, rows: dict[Attachment, int], retained: Mapping[str, Attachment]
    ) -> None:
        """`own`: what it keeps although it may be detached."""
        meant = _requested_attachment_ids(sequence)
        for sae, row in requested_hook_rows(sequence).items():
            attached = retained.get(sae) or self._resolve(sae, meant[sae])
            _check_hook_row(attached.facts, row)
            rows[attached] = attached.hook.acquire(row)

    def _resolve(self, sae: str, attachment_id: str) -> Attachment:
        """`meant`: the attachment's id, if it matters."""
        attached = self._attachments.get(sae)
        if attached is None and self.disabled_reason:
            raise SaeDetached(self.disabled_reason)
        if attached is None and not attachment_id:
            raise InvalidSteering(f"no SAE named {sae!r} is attached")
        if attached is None or attachment_id not in ("", attached.facts.id):
            raise SaeDetached(f"SAE {sae!r} was detached, or attached anew, while this request was read; ask again")
        return attached

    def _can_steer(self, steering: Steering) -> bool:
        """Is all that it uses attached, and what was meant?"""
        ids = {sae: attached.facts.id for sae, attached in self._attachments.items()}
        return all(tap.sae in ids and tap.attachment in ("", ids[tap.sae]) for tap in steering.by_sae)

    def _can_watch(self, watch: Watch) -> bool:
        attached = self._attachments.get(watch.sae)
        return attached is not None and watch.attachment in ("", attached.facts.id)

    def _release(self, rows: dict[Attachment, int]) -> None:
        for attached, index in rows.items():
            attached.hook.release(index)
        rows.clear()


def requested_hook_rows(sequence: Sequence) -> dict[str, HookRow]:
    """What the sequence wants of each SAE."""
    features = {tap.sae: tap.features for tap in sequence.steering.by_sae} if sequence.steering else {}
    watches = {watch.sae: watch for watch in sequence.watch}
    return {sae: HookRow(features.get(sae, ()), watches.get(sae)) for sae in {**features, **watches}}


def _requested_attachment_ids(sequence: Sequence) -> dict[str, str]:
    """Which attachment each of its SAEs' names stood for when it was read."""
    watched = {watch.sae: watch.attachment for watch in sequence.watch}
    steered = {tap.sae: tap.attachment for tap in sequence.steering.by_sae} if sequence.steering else {}
    return watched | steered


def _check_hook_row(facts: SaeFacts, row: HookRow) -> None:
    if row.features and not facts.steerable:
        raise InvalidSteering(f"SAE {facts.sae!r} can be watched but not steered: its output is not this hook point")
    for index in (*(feature.index for feature in row.features), *row.watched_features):
        if not 0 <= index < facts.features:
            raise InvalidSteering(f"feature {index} is not in 0..{facts.features - 1} of SAE {facts.sae!r}")
