"""The hook of one SAE on its hook point: tables in, steered hidden states and readings out.

Changes of features, strengths, requests or watch lists write rows of these tables between steps; the hook itself never
changes. Row 0 is exact zero: a step in which every sequence has row 0 leaves the model's own tensor untouched.

Per row r and feature j (formula: `sae/steering.py`; the same core design as EasySteer's in-graph tables):

    1. a_j = activation of feature j on x, the hook tensor before steering, in fp32 and residual units
    2. c_j = clip(alpha_j + beta_j·a_j, lo_j, hi_j)
    3. delta = gain·Σ c_j·d_j, where `add` features were summed into one vector when the row was written
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor

from millm.errors import InsufficientMemory, InvalidSteering
from millm.sae.activations import FeatureRows
from millm.sae.autoencoder import FullReading, SparseAutoencoder, read_all_features
from millm.sae.config import FEATURE_BANK_SIZE, MAX_TABLE_ROWS, MAX_WATCHED_FEATURES
from millm.sae.hook_step import HookOutput, HookRow, HookStep, RowPlan, TokenSpan, plan_row
from millm.sae.steering import MAX_ENCODED_FEATURES, Coefficients, reads_activation

Key = TypeVar("Key", bound=Hashable)


class RowTable(Generic[Key]):
    """Reference-counted row numbers from 1: equal keys share one, which is free again after its last release."""

    def __init__(self, size: int) -> None:
        self._free = list(range(size, 0, -1))
        self._index: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._users: dict[int, int] = {}

    def has_room(self, key: Key) -> bool:
        return bool(self._free) or key in self._index

    def acquire(self, key: Key) -> tuple[int, bool]:
        """(row number, is_new). Raises InsufficientMemory when the table is full."""
        index = self._index.get(key)
        is_new = index is None
        if index is None:
            if not self._free:
                raise InsufficientMemory("too many different steerings are running at once; try again")
            index = self._free.pop()
            self._index[key], self._keys[index], self._users[index] = index, key, 0
        self._users[index] += 1
        return index, is_new

    def release(self, index: int) -> Key | None:
        """The key if this was its last user, else None."""
        self._users[index] -= 1
        if self._users[index]:
            return None
        key = self._keys.pop(index)
        del self._index[key], self._users[index]
        self._free.append(index)
        return key

    def key(self, index: int) -> Key:
        return self._keys[index]

    @property
    def free(self) -> int:
        return len(self._free)


class FeatureBank:
    """Encoder and decoder rows of the features in use, gathered from the memory-mapped SAE; slot 0 is zero."""

    def __init__(self, sae: SparseAutoencoder, device: torch.device) -> None:
        self._sae = sae
        self._device = device
        self._slots: RowTable[int] = RowTable(FEATURE_BANK_SIZE)
        self._slot_of: dict[int, int] = {}
        one_row, size = sae.features([0], device=device), FEATURE_BANK_SIZE + 1
        self.feature_rows = one_row.replace_tensors(
            {name: row.new_zeros((size, *row.shape[1:])) for name, row in one_row.tensors().items()}
        )
        self.feature_ids = torch.zeros(FEATURE_BANK_SIZE + 1, dtype=torch.long, device=device)

    @property
    def free(self) -> int:
        return self._slots.free

    @property
    def memory(self) -> int:
        """Bytes on the device."""
        return self.feature_ids.nbytes + sum(table.nbytes for table in self.feature_rows.tensors().values())

    def acquire(self, features: Iterable[int]) -> list[int]:
        return [self._acquire(feature) for feature in features]

    def release(self, features: Iterable[int]) -> None:
        for feature in features:
            if self._slots.release(self._slot_of[feature]) is not None:
                del self._slot_of[feature]

    def _acquire(self, feature: int) -> int:
        slot, is_new = self._slots.acquire(feature)
        if is_new:
            self._slot_of[feature] = slot
            self.feature_ids[slot] = feature
            rows = self._sae.features([feature], device=self._device).tensors()
            for name, table in self.feature_rows.tensors().items():
                table[slot] = rows[name][0]
        return slot


class SteeringHook:
    """The tables and hook function of one attached SAE. Not thread-safe: the engine's loop owns it."""

    def __init__(self, sae: SparseAutoencoder, device: torch.device, sample_every: int = 1) -> None:
        self.sae = sae
        self.device = device
        self.sample_every = sample_every  # default of a watch without `sample_every`
        self.output = HookOutput()
        self.step: HookStep | None = None
        """For the next pass; None leaves the hidden states untouched."""
        self._row_table: RowTable[HookRow] = RowTable(MAX_TABLE_ROWS)
        self._bank = FeatureBank(sae, device)
        size = MAX_TABLE_ROWS + 1
        self._deltas = torch.zeros(size, sae.config.d_out, device=device)
        self._encoded_slots = torch.zeros(size, MAX_ENCODED_FEATURES, dtype=torch.long, device=device)
        self._coefficients = torch.zeros(4, size, MAX_ENCODED_FEATURES, device=device)  # alpha, beta, lo, hi
        self._watched_slots = torch.zeros(size, MAX_WATCHED_FEATURES, dtype=torch.long, device=device)

    def has_room(self, row: HookRow) -> bool:
        """Whether `acquire` would find a table row and bank slots now."""
        return (
            self._row_table.has_room(row) and len(row.encoded_features) + len(row.watched_features) <= self._bank.free
        )

    @property
    def is_unused(self) -> bool:
        """True when no table row is in use."""
        return self._row_table.free == MAX_TABLE_ROWS

    @property
    def memory(self) -> int:
        """Bytes on the device, of all tables."""
        tables = (self._deltas, self._encoded_slots, self._coefficients, self._watched_slots)
        return sum(table.nbytes for table in tables) + self._bank.memory

    def acquire(self, row: HookRow) -> int:
        """The index of the table row for `row`, written if new; pair with `release`. Raises InvalidSteering or
        InsufficientMemory.
        """
        self._check_limits(row)
        index, is_new = self._row_table.acquire(row)
        if is_new:
            self._write_row(index, row)
        return index

    def release(self, index: int) -> None:
        row = self._row_table.release(index)
        if row is not None:
            self._bank.release(feature.index for feature in row.encoded_features)
            self._bank.release(row.watched_features)

    def additive_delta(self, features: Sequence[Coefficients]) -> Tensor:
        """Sum of features of mode `add`: Σ strength · unit decoder row, [d]."""
        if not features:
            return torch.zeros(self.sae.config.d_out, device=self.device)
        rows: FeatureRows = self.sae.features([feature.index for feature in features], device=self.device)
        strengths = torch.tensor([feature.alpha for feature in features], device=self.device)
        return strengths @ rows.dec

    def prepare(self, rows: Sequence[int], steer_mask: Sequence[Sequence[bool]], spans: Sequence[TokenSpan]) -> None:
        """Choose the rows of the next pass. `steer_mask[b][t]`: whether token t of row b is steered."""
        self.output = HookOutput()
        plans = [
            self._plan_row(row, mask, span) if row else None
            for row, mask, span in zip(rows, steer_mask, spans, strict=True)
        ]
        live = [plan for plan in plans if plan and not plan.is_idle]
        if not live:
            self.step = None
            return
        tokens = len(steer_mask[0])
        reads_after = [plan is not None and plan.row.reads_after for plan in plans]
        self.step = HookStep(
            rows=torch.tensor(rows, device=self.device),
            steer_mask=torch.tensor(steer_mask, dtype=torch.float32, device=self.device),
            encoded_columns=max(len(plan.row.encoded_features) for plan in live),
            watched_columns=max((len(plan.row.watched_features) for plan in live if plan.watched_offsets), default=0),
            top_k=max((plan.row.watch.top_k for plan in live if plan.row.watch and plan.sampled_offsets), default=0),
            steers=any(plan.row.features for plan in live),
            reads_after=torch.tensor(reads_after, device=self.device)[:, None, None] if any(reads_after) else None,
            reads_both=any(plan.row.reads_both for plan in live),
            full_read_before=self._flat_token_indices([p.full_read_before if p else set() for p in plans], tokens),
            full_read_after=self._flat_token_indices([p.full_read_after if p else set() for p in plans], tokens),
        )

    @contextmanager
    def override_step(self, step: HookStep) -> Iterator[None]:
        """Use another step within the block."""
        previous, self.step = self.step, step
        try:
            yield
        finally:
            self.step = previous

    def _plan_row(self, row: int, steer_mask: Sequence[bool], span: TokenSpan) -> RowPlan:
        sparse = self.sae.config.can_read_sparsely
        return plan_row(
            self._row_table.key(row), steer_mask, span, sample_every=self.sample_every, can_read_sparsely=sparse
        )

    def _flat_token_indices(self, offsets: Sequence[set[int]], tokens: int) -> Tensor | None:
        indices = [row * tokens + offset for row, of_row in enumerate(offsets) for offset in sorted(of_row)]
        return torch.tensor(indices, device=self.device) if indices else None

    def __call__(self, hidden: Tensor) -> Tensor | None:
        """The hook: `hidden [B, T, d]` → the same plus the deltas; None leaves it untouched."""
        step = self.step
        if step is None:
            return None
        x = hidden.float()
        before = self._read_all_features(x, step, step.full_read_before)
        if not step.steers:
            self.output = self._build_output(x, step, before)
            return None
        delta = self._compute_delta(x, step, before) * step.steer_mask[..., None]  # [B, T, d]
        steered = x + delta
        ratio = delta.norm(dim=-1) / x.norm(dim=-1).clamp_min(1e-12)  # [B, T]
        after = self._read_all_features(steered, step, step.full_read_after)
        output_after = self._build_output(steered, step, after) if step.reads_both else None
        if step.reads_after is not None:  # from here on, x is the tensor at which each row is read: before or after
            before = after.where(step.reads_after, before) if after and before else after or before
            x = torch.where(step.reads_after, steered, x)
        self.output = self._build_output(x, step, before, ratio, output_after)
        return steered.to(hidden.dtype)

    def _compute_delta(self, x: Tensor, step: HookStep, reading: FullReading | None) -> Tensor:
        delta = self._deltas[step.rows][:, None]  # [B, 1, d]
        if not step.encoded_columns:
            return delta
        features = self._encoded_slots[step.rows, : step.encoded_columns]  # [B, K]
        alpha, beta, lo, hi = self._coefficients[:, step.rows, None, : step.encoded_columns]  # each [B, 1, K]
        z, gain = self.sae.normalise(x)
        if self.sae.config.can_read_sparsely:
            activations = self._bank.feature_rows[features].activations(z)  # [B, T, K]
        elif reading:
            activations = reading.named[..., : step.encoded_columns]
        else:
            return delta  # no token is steered
        c = (alpha + beta * activations).clamp(lo, hi)  # [B, T, K]
        steered: Tensor = delta + gain * (c @ self._bank.feature_rows.dec[features])
        return steered

    def _read_all_features(self, x: Tensor, step: HookStep, token_indices: Tensor | None) -> FullReading | None:
        if token_indices is None:
            return None
        if self.sae.config.can_read_sparsely:
            named = step.rows.new_zeros(len(step.rows), 0)
        else:
            steered = self._encoded_slots[step.rows, : step.encoded_columns]
            watched = self._watched_slots[step.rows, : step.watched_columns]
            named = self._bank.feature_ids[torch.cat([steered, watched], dim=-1)]  # [B, K + M]
        return read_all_features(self.sae, x, token_indices, named, step.top_k)

    def _build_output(
        self,
        x: Tensor,
        step: HookStep,
        reading: FullReading | None,
        ratio: Tensor | None = None,
        after: HookOutput | None = None,
    ) -> HookOutput:
        return HookOutput(
            ratio=ratio,
            after=after,
            watched=self._watched_activations(x, step, reading) if step.watched_columns else None,
            top_values=reading.top_values if reading else None,
            top_indices=reading.top_indices if reading else None,
        )

    def _watched_activations(self, x: Tensor, step: HookStep, reading: FullReading | None) -> Tensor | None:
        """[B, T, M]; None without a full read that is needed."""
        if not self.sae.config.can_read_sparsely:
            return reading.named[..., step.encoded_columns :] if reading else None
        z, _ = self.sae.normalise(x)
        return self._bank.feature_rows[self._watched_slots[step.rows, : step.watched_columns]].activations(z)

    def _check_limits(self, row: HookRow) -> None:
        if len(row.encoded_features) > MAX_ENCODED_FEATURES:
            raise InvalidSteering(
                f"at most {MAX_ENCODED_FEATURES} features per SAE may use a mode other than 'add',"
                f" not {len(row.encoded_features)}"
            )
        if len(row.watched_features) > MAX_WATCHED_FEATURES:
            raise InvalidSteering(
                f"at most {MAX_WATCHED_FEATURES} features can be watched, not {len(row.watched_features)}"
            )
        if len(row.encoded_features) + len(row.watched_features) > self._bank.free:
            raise InsufficientMemory("too many different features are in use at once; try again")

    def _write_row(self, index: int, row: HookRow) -> None:
        added = [feature for feature in row.features if not reads_activation(feature)]
        self._deltas[index] = self.additive_delta(added)
        slots = self._bank.acquire(feature.index for feature in row.encoded_features)
        self._fill_slots(self._encoded_slots[index], slots)
        self._coefficients[:, index] = 0.0
        for column, feature in enumerate(row.encoded_features):
            values = (feature.alpha, feature.beta, feature.lo, feature.hi)
            self._coefficients[:, index, column] = torch.tensor(values, device=self.device)
        self._fill_slots(self._watched_slots[index], self._bank.acquire(row.watched_features))

    @staticmethod
    def _fill_slots(table_row: Tensor, slots: Sequence[int]) -> None:
        table_row.zero_()
        table_row[: len(slots)] = torch.tensor(slots, dtype=torch.long, device=table_row.device)
