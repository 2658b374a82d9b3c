"""Every attached SAE's tap, worked together: rows for a step, readings and receipts out of it.

An SAE that is detached takes nobody new; what was begun with it ends with it, and then its hook goes. Another may be on
the same hook point, and under the same name, by then: no sequence has rows of both, and row 0 changes nothing.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field
from itertools import zip_longest

from msgspec.structs import replace
from torch.utils.hooks import RemovableHandle

from millm.engine.messages import Reading, Receipt, SaeFacts, Watch
from millm.engine.readings import readings_of, span_of
from millm.engine.scheduler import Row
from millm.engine.sequence import Sequence
from millm.errors import InvalidSteering, MillmError, SaeDetached, SaeMismatch, SaeNotFound
from millm.sae.hooks import HookPoint
from millm.sae.steering import Steering, TapSteering
from millm.sae.tap import Tap
from millm.sae.tap_step import TapRow


@dataclass(frozen=True, eq=False)
class Attachment:
    """Equal to nothing but itself: an SAE that is attached again is another one."""

    tap: Tap
    point: HookPoint
    handle: RemovableHandle
    facts: SaeFacts


@dataclass
class SequenceTaps:
    """What the taps remember of one sequence. By position, so that a pass that is run again counts once."""

    rows: dict[Attachment, int]
    """Table row in each tap that it uses."""
    steered: list[bool] = field(default_factory=list)
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

    def mark(self, start: int, steered: list[bool]) -> None:
        """A token that was steered once stays so, also where the sequence began again and is not steered any more."""
        places = slice(start, start + len(steered))
        before = self.steered[places]
        self.steered[places] = [any(both) for both in zip_longest(steered, before, fillvalue=False)]


class Taps:
    def __init__(self, special_ids: frozenset[int] = frozenset()) -> None:
        self._attached: dict[str, Attachment] = {}
        self._leaving: list[Attachment] = []
        """Detached, and still in use."""
        self.special_ids = special_ids
        self.detached: str | None = None
        """Why every SAE was turned off, if they were; until one is attached."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the SAEs that are attached."""
        return tuple(self._attached)

    def check_free(self, sae: str, point: HookPoint, replaces: str | None = None) -> None:
        """Raises SaeMismatch if the name or the hook point is taken by another than the one that is replaced."""
        for name, attached in self._attached.items():
            if name == replaces:
                continue
            if name == sae:
                raise SaeMismatch(f"an SAE named {sae!r} is already attached; give this one another name")
            if attached.point.name == point.name:
                raise SaeMismatch(f"{point.name} already has SAE {name!r} attached; a hook point takes one")

    def attach(self, tap: Tap, point: HookPoint, facts: SaeFacts, replaces: str | None = None) -> None:
        """Raises SaeMismatch; what it replaces is detached then and not before."""
        self.check_free(facts.sae, point, replaces)
        if replaces in self._attached:
            self.detach(replaces)
        self._attached[facts.sae] = Attachment(tap, point, point.register(tap), facts)
        self.detached = None

    def detach(self, sae: str) -> None:
        """Nothing new uses it; its hook goes with the next `sweep` that finds it unused. Raises SaeNotFound."""
        if sae not in self._attached:
            raise self._unknown(sae)
        self._leaving.append(self._attached.pop(sae))

    def named(self, sae: str, meant: str = "") -> Attachment:
        """`meant`: the attachment's id, if it matters. Raises SaeNotFound or SaeDetached."""
        if sae not in self._attached and not meant and not self.detached:
            raise self._unknown(sae)
        return self._find(sae, meant)

    def _unknown(self, sae: str) -> SaeNotFound:
        return SaeNotFound(f"no SAE named {sae!r} is attached; there are: {', '.join(self._attached) or 'none'}")

    def steered_by(self, tap: TapSteering) -> Attachment:
        """Whose tap this would be. Raises SaeNotFound, SaeDetached or InvalidSteering."""
        attached = self.named(tap.sae, tap.attachment)
        _check(attached.facts, TapRow(tap.features))
        return attached

    def sweep(self) -> bool:
        """Take off the hooks of what is detached and out of use; False if there was none."""
        unused = [attached for attached in self._leaving if attached.tap.is_unused]
        for attached in unused:
            attached.handle.remove()
            self._leaving.remove(attached)
        return bool(unused)

    def remove_all(self) -> None:
        for attached in self._hooked:
            attached.handle.remove()
        self._attached.clear()
        self._leaving.clear()

    def attached(self) -> list[Tap]:
        """Of every hook that a pass goes through."""
        return [attached.tap for attached in self._hooked]

    @property
    def _hooked(self) -> list[Attachment]:
        return [*self._attached.values(), *self._leaving]

    def fits(self, sequence: Sequence) -> bool:
        """Are there table rows for what it steers and watches? True also for what can never be."""
        wanted = tap_rows(sequence)
        return all(self._attached[sae].tap.has_room(row) for sae, row in wanted.items() if sae in self._attached)

    def start(self, sequence: Sequence) -> None:
        """Take a table row in every tap the request steers or watches; `finish` gives back those that were taken.

        Raises InvalidSteering, SaeDetached or InsufficientMemory.
        """
        sequence.taps = SequenceTaps({})
        self._do_without(sequence)
        sequence.watch = tuple(watch for watch in sequence.watch if not watch.optional or self._is_there(watch))
        self._acquire(sequence, sequence.taps.rows, {})

    def _do_without(self, sequence: Sequence) -> None:
        """Whoever only follows what is active goes on without, while its SAE is off or about to be followed by another.

        What is active changes with what is attached: the API process says so right after, and it has that then.
        """
        if sequence.request.follows_active and sequence.steering and not self._has(sequence.steering):
            sequence.steering = None
            sequence.taps.degraded = self.detached

    def change(self, sequence: Sequence, steering: Steering | None) -> None:
        """From its next token on the sequence has this steering. Raises as `start` does; nothing has changed then."""
        state: SequenceTaps | None = sequence.taps
        before, sequence.steering = sequence.steering, steering
        if state is None:
            return
        self._do_without(sequence)
        rows: dict[Attachment, int] = {}
        try:
            self._acquire(sequence, rows, self._kept(state, steering))
        except MillmError:
            sequence.steering = before
            self._release(rows)
            raise
        self._release(state.rows)
        state.rows = rows

    def _kept(self, state: SequenceTaps, steering: Steering | None) -> dict[str, Attachment]:
        """What it goes on watching, also where that is detached; what steers it now is what is attached now."""
        steered = {tap.sae for tap in steering.taps} if steering else set()
        return {sae: own for sae, own in state.attachments.items() if sae not in steered or sae not in self._attached}

    def resume(self, sequence: Sequence, trail: object, cached: int) -> None:
        """The sequence goes on from what another one computed: what was done there was done for it too."""
        if isinstance(trail, SequenceTaps):
            sequence.taps.mark(0, trail.steered[:cached])
            for sae, ratios in trail.ratios.items():
                sequence.taps.ratios[sae] = ratios[:cached]

    def finish(self, sequence: Sequence) -> Receipt | None:
        """Give the rows back; → what was really done to the sequence."""
        state: SequenceTaps | None = sequence.taps
        if state is None:
            return None
        self._release(state.rows)
        sequence.taps = None
        if sequence.steering is None and not any(state.steered) and state.degraded is None:
            return None
        steered = sum(state.steered)
        mean = max((sum(ratios) / max(steered, 1) for ratios in state.ratios.values()), default=0.0)
        return Receipt(
            fingerprint=sequence.steering.fingerprint if sequence.steering else "",
            tokens_steered=steered,
            delta_norm_ratio=mean,
            degraded=state.degraded,
        )

    def steered(self, sequence: Sequence, start: int, tokens: Sequence_[int]) -> list[bool]:
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

    def prepare(self, rows: Sequence_[Row]) -> None:
        """Set every tap for one forward pass over `rows` (all of one length)."""
        keep = [self.steered(row.sequence, row.start, row.tokens) for row in rows]
        spans = [span_of(row) for row in rows]
        for attached in self._hooked:
            attached.tap.prepare([row.sequence.taps.rows.get(attached, 0) for row in rows], keep, spans)

    def rest(self) -> None:
        """Let the next pass go through untouched: nothing of the last step is left in a tap."""
        self.prepare(())

    def collect(self, rows: Sequence_[Row]) -> list[tuple[Reading, ...]]:
        """After the pass: add to the receipts; → readings per row."""
        for row in rows:
            row.sequence.taps.mark(row.start, self.steered(row.sequence, row.start, row.tokens))
        readings: list[list[Reading]] = [[] for _ in rows]
        for attached in self._hooked:
            self._collect_ratio(attached, rows)
            for index, row in enumerate(rows):
                if attached in row.sequence.taps.rows:
                    readings[index] += readings_of(attached.facts.sae, attached.tap, index, row)
        for row in rows:
            row.sequence.taps.read = max(row.sequence.taps.read, row.start + len(row.tokens))
        return [tuple(found) for found in readings]

    def _collect_ratio(self, attached: Attachment, rows: Sequence_[Row]) -> None:
        ratio = attached.tap.output.ratio
        ratios = None if ratio is None else ratio.tolist()
        for index, row in enumerate(rows):
            if row.sequence.steering and attached in row.sequence.taps.rows:
                found = ratios[index] if ratios else [0.0] * len(row.tokens)
                known = row.sequence.taps.ratios[attached.facts.sae]
                known += [0.0] * (row.start - len(known))
                known[row.start : row.start + len(found)] = found

    # ------------------------------------------------------------------------------------------------ giving up

    def give_up_full_width(self, sequences: Iterable[Sequence], reason: str) -> bool:
        """No more `top_k` for these; False if none of them had it."""
        return self._watch_less(sequences, reason, lambda watch: replace(watch, top_k=0) if watch.features else None)

    def give_up_watching(self, sequences: Iterable[Sequence], reason: str) -> bool:
        return self._watch_less(sequences, reason, lambda _watch: None)

    def _watch_less(self, sequences: Iterable[Sequence], reason: str, less: Callable[[Watch], Watch | None]) -> bool:
        changed = False
        for sequence in sequences:
            watch = tuple(kept for asked in sequence.watch if (kept := less(asked)))
            if sequence.taps and watch != sequence.watch:
                own = sequence.taps.attachments
                self._release(sequence.taps.rows)
                sequence.watch = watch
                sequence.taps.degraded = reason
                self._acquire(sequence, sequence.taps.rows, own)
                changed = True
        return changed

    def detach_all(self, sequences: Iterable[Sequence], reason: str) -> bool:
        """Every SAE off; whoever was steered or watched goes on without, and its receipt says so."""
        if not self._hooked:
            return False
        for sequence in sequences:
            state: SequenceTaps | None = sequence.taps
            if state and state.rows:
                state.rows.clear()
                state.degraded = reason
                sequence.steering, sequence.watch = None, ()
        self.remove_all()
        self.detached = reason
        return True

    def leaving(self, sequences: Iterable[Sequence]) -> list[Sequence]:
        """Those of `sequences` that still use an SAE that is detached."""
        left = set(self._leaving)
        return [sequence for sequence in sequences if sequence.taps and left & sequence.taps.rows.keys()]

    def _acquire(self, sequence: Sequence, rows: dict[Attachment, int], own: Mapping[str, Attachment]) -> None:
        """`own`: what it keeps although it may be detached."""
        meant = _attachments(sequence)
        for sae, row in tap_rows(sequence).items():
            attached = own.get(sae) or self._find(sae, meant[sae])
            _check(attached.facts, row)
            rows[attached] = attached.tap.acquire(row)

    def _find(self, sae: str, meant: str) -> Attachment:
        """`meant`: the attachment's id, if it matters."""
        attached = self._attached.get(sae)
        if attached is None and self.detached:
            raise SaeDetached(self.detached)
        if attached is None and not meant:
            raise InvalidSteering(f"no SAE named {sae!r} is attached")
        if attached is None or meant not in ("", attached.facts.id):
            raise SaeDetached(f"SAE {sae!r} was detached, or attached anew, while this request was read; ask again")
        return attached

    def _has(self, steering: Steering) -> bool:
        """Is all that it uses attached, and what was meant?"""
        ids = {sae: attached.facts.id for sae, attached in self._attached.items()}
        return all(tap.sae in ids and tap.attachment in ("", ids[tap.sae]) for tap in steering.taps)

    def _is_there(self, watch: Watch) -> bool:
        attached = self._attached.get(watch.sae)
        return attached is not None and watch.attachment in ("", attached.facts.id)

    def _release(self, rows: dict[Attachment, int]) -> None:
        for attached, index in rows.items():
            attached.tap.release(index)
        rows.clear()


def tap_rows(sequence: Sequence) -> dict[str, TapRow]:
    """What the sequence wants of each SAE."""
    features = {tap.sae: tap.features for tap in sequence.steering.taps} if sequence.steering else {}
    watches = {watch.sae: watch for watch in sequence.watch}
    return {sae: TapRow(features.get(sae, ()), watches.get(sae)) for sae in {**features, **watches}}


def _attachments(sequence: Sequence) -> dict[str, str]:
    """Which attachment each of its SAEs' names stood for when it was read."""
    watched = {watch.sae: watch.attachment for watch in sequence.watch}
    steered = {tap.sae: tap.attachment for tap in sequence.steering.taps} if sequence.steering else {}
    return watched | steered


def _check(facts: SaeFacts, row: TapRow) -> None:
    if row.features and not facts.steerable:
        raise InvalidSteering(f"SAE {facts.sae!r} can be watched but not steered: its output is not this hook point")
    for index in (*(feature.index for feature in row.features), *row.watched):
        if not 0 <= index < facts.features:
            raise InvalidSteering(f"feature {index} is not in 0..{facts.features - 1} of SAE {facts.sae!r}")
