"""One SAE's tap on a hook point: tables in, steered hidden states and readings out.

Changing features, strengths, requests or watch lists writes rows of these tables between steps; the hook itself never
changes. Row 0 is exact zero: a step in which every sequence has row 0 leaves the model's own tensor untouched.

Per row r and feature j (formula: `sae/steering.py`; the same core design as EasySteer's in-graph tables):

    1. a_j = activation of feature j on x, the hook tensor before steering, in fp32 and residual units
    2. c_j = clip(alpha_j + beta_j·a_j, lo_j, hi_j)
    3. delta = gain·Σ c_j·d_j, where `add` features were summed into one vector when the row was written
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from millm.errors import InsufficientMemory, InvalidSteering
from millm.sae.activations import FeatureRows
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.sizes import MAX_ROWS, MAX_WATCHED_FEATURES
from millm.sae.steering import MAX_ENCODED_FEATURES, Coefficients, reads_activation
from millm.sae.tables import FeatureBank, RowTable
from millm.sae.tap_step import RowPlan, Span, TapOutput, TapRow, TapStep, plan_row
from millm.sae.whole import WholeReading, read_whole


class Tap:
    """Tables of one attached SAE. Not thread-safe: the engine's loop owns it."""

    def __init__(self, sae: SparseAutoencoder, device: torch.device, sample_every: int = 1) -> None:
        self.sae = sae
        self.device = device
        self.sample_every = sample_every
        """For a `top_k` that does not say how often it is read."""
        self.output = TapOutput()
        self.step: TapStep | None = None
        """Of the next pass; None leaves it untouched."""
        self._rows: RowTable[TapRow] = RowTable(MAX_ROWS)
        self._bank = FeatureBank(sae, device)
        size = MAX_ROWS + 1
        self._delta = torch.zeros(size, sae.config.d_out, device=device)
        self._steered = torch.zeros(size, MAX_ENCODED_FEATURES, dtype=torch.long, device=device)
        self._coefficients = torch.zeros(4, size, MAX_ENCODED_FEATURES, device=device)  # alpha, beta, lo, hi
        self._watched = torch.zeros(size, MAX_WATCHED_FEATURES, dtype=torch.long, device=device)

    # ------------------------------------------------------------------------------------------ between steps

    def has_room(self, row: TapRow) -> bool:
        """Would `acquire` find a table row and bank slots now?"""
        return self._rows.has_room(row) and len(row.encoded) + len(row.watched) <= self._bank.free

    @property
    def is_unused(self) -> bool:
        """Nobody has a table row."""
        return self._rows.free == MAX_ROWS

    @property
    def memory(self) -> int:
        """Bytes on the device: its tables, and the rows of the features in use."""
        own = (self._delta, self._steered, self._coefficients, self._watched)
        return sum(tensor.nbytes for tensor in own) + self._bank.memory

    def acquire(self, row: TapRow) -> int:
        """The index of the table row for `row`, written if it is new. Pair with `release`."""
        self._check(row)
        index, is_new = self._rows.acquire(row)
        if is_new:
            self._write(index, row)
        return index

    def release(self, index: int) -> None:
        row = self._rows.release(index)
        if row is not None:
            self._bank.release(feature.index for feature in row.encoded)
            self._bank.release(row.watched)

    def sum_of(self, features: Sequence[Coefficients]) -> Tensor:
        """What features of mode `add` add together: Σ strength · unit decoder row  # [d]"""
        if not features:
            return torch.zeros(self.sae.config.d_out, device=self.device)
        rows: FeatureRows = self.sae.features([feature.index for feature in features], device=self.device)
        strengths = torch.tensor([feature.alpha for feature in features], device=self.device)
        return strengths @ rows.dec

    def prepare(self, rows: Sequence[int], keep: Sequence[Sequence[bool]], spans: Sequence[Span]) -> None:
        """Choose the rows of the next pass. `keep[b][t]` is False where token t of row b is left alone."""
        self.output = TapOutput()
        plans = [
            self._plan(row, kept, span) if row else None for row, kept, span in zip(rows, keep, spans, strict=True)
        ]
        live = [plan for plan in plans if plan and not plan.is_idle]
        if not live:
            self.step = None
            return
        self.step = TapStep(
            rows=torch.tensor(rows, device=self.device),
            keep=torch.tensor(keep, dtype=torch.float32, device=self.device),
            encoded=max(len(plan.row.encoded) for plan in live),
            watched=max((len(plan.row.watched) for plan in live if plan.asked), default=0),
            top_k=max((plan.row.watch.top_k for plan in live if plan.row.watch and plan.due), default=0),
            steers=any(plan.row.features for plan in live),
            reads_after=self._reads_after(plans),
            reads_both=any(plan.row.reads_both for plan in live),
            whole_before=self._places([plan.whole_before if plan else set() for plan in plans], len(keep[0])),
            whole_after=self._places([plan.whole_after if plan else set() for plan in plans], len(keep[0])),
        )

    @contextmanager
    def using(self, step: TapStep) -> Iterator[None]:
        """Another step for a while."""
        before, self.step = self.step, step
        try:
            yield
        finally:
            self.step = before

    def _plan(self, row: int, keep: Sequence[bool], span: Span) -> RowPlan:
        sparse = self.sae.config.sparse_readable
        return plan_row(self._rows.key(row), keep, span, sample_every=self.sample_every, sparse=sparse)

    def _reads_after(self, plans: Sequence[RowPlan | None]) -> Tensor | None:
        after = [plan is not None and plan.row.reads_after for plan in plans]
        return torch.tensor(after, device=self.device)[:, None, None] if any(after) else None

    def _places(self, offsets: Sequence[set[int]], tokens: int) -> Tensor | None:
        found = [row * tokens + offset for row, some in enumerate(offsets) for offset in sorted(some)]
        return torch.tensor(found, device=self.device) if found else None

    # -------------------------------------------------------------------------------------------- in the pass

    def __call__(self, hidden: Tensor) -> Tensor | None:
        """The hook: `hidden [B, T, d]` in, the same with deltas added out; None leaves it untouched."""
        step = self.step
        if step is None:
            return None
        x = hidden.float()
        before = self._whole(x, step, step.whole_before)
        if not step.steers:
            self.output = self._output(x, step, before)
            return None
        delta = self._delta_of(x, step, before) * step.keep[..., None]  # [B, T, d]
        steered = x + delta
        ratio = delta.norm(dim=-1) / x.norm(dim=-1).clamp_min(1e-12)  # [B, T]
        after = self._whole(steered, step, step.whole_after)
        behind = self._output(steered, step, after) if step.reads_both else None
        if step.reads_after is not None:  # from here on x is what each row is read at: before its steering, or after
            before = after.where(step.reads_after, before) if after and before else after or before
            x = torch.where(step.reads_after, steered, x)
        self.output = self._output(x, step, before, ratio, behind)
        return steered.to(hidden.dtype)

    def _delta_of(self, x: Tensor, step: TapStep, whole: WholeReading | None) -> Tensor:
        delta = self._delta[step.rows][:, None]  # [B, 1, d]
        if not step.encoded:
            return delta
        features = self._steered[step.rows, : step.encoded]  # [B, K]
        alpha, beta, lo, hi = self._coefficients[:, step.rows, None, : step.encoded]  # each [B, 1, K]
        z, gain = self.sae.normalise(x)
        if self.sae.config.sparse_readable:
            activations = self._bank.rows[features].activations(z)  # [B, T, K]
        elif whole:
            activations = whole.named[..., : step.encoded]
        else:
            return delta  # not one token is steered
        c = (alpha + beta * activations).clamp(lo, hi)  # [B, T, K]
        steered: Tensor = delta + gain * (c @ self._bank.decoder(features))
        return steered

    def _whole(self, x: Tensor, step: TapStep, at: Tensor | None) -> WholeReading | None:
        if at is None:
            return None
        if self.sae.config.sparse_readable:
            named = step.rows.new_zeros(len(step.rows), 0)
        else:
            steered, watched = self._steered[step.rows, : step.encoded], self._watched[step.rows, : step.watched]
            named = self._bank.feature_ids[torch.cat([steered, watched], dim=-1)]  # [B, K + M]
        return read_whole(self.sae, x, at, named, step.top_k)

    def _output(
        self,
        x: Tensor,
        step: TapStep,
        whole: WholeReading | None,
        ratio: Tensor | None = None,
        after: TapOutput | None = None,
    ) -> TapOutput:
        return TapOutput(
            ratio=ratio,
            after=after,
            watched=self._watched_of(x, step, whole) if step.watched else None,
            top_values=whole.top_values if whole else None,
            top_indices=whole.top_indices if whole else None,
        )

    def _watched_of(self, x: Tensor, step: TapStep, whole: WholeReading | None) -> Tensor | None:
        """Activations [B, T, M] of the watched features."""
        if not self.sae.config.sparse_readable:
            return whole.named[..., step.encoded :] if whole else None
        z, _ = self.sae.normalise(x)
        return self._bank.rows[self._watched[step.rows, : step.watched]].activations(z)

    # ------------------------------------------------------------------------------------------ writing a row

    def _check(self, row: TapRow) -> None:
        if len(row.encoded) > MAX_ENCODED_FEATURES:
            raise InvalidSteering(
                f"at most {MAX_ENCODED_FEATURES} features per SAE may use a mode other than 'add',"
                f" this asks for {len(row.encoded)}"
            )
        if len(row.watched) > MAX_WATCHED_FEATURES:
            raise InvalidSteering(f"at most {MAX_WATCHED_FEATURES} features can be watched, not {len(row.watched)}")
        if len(row.encoded) + len(row.watched) > self._bank.free:
            raise InsufficientMemory("too many different features are in use at once; try again")

    def _write(self, index: int, row: TapRow) -> None:
        added = [feature for feature in row.features if not reads_activation(feature)]
        self._delta[index] = self.sum_of(added)
        slots = self._bank.acquire(feature.index for feature in row.encoded)
        self._fill(self._steered[index], slots)
        self._coefficients[:, index] = 0.0
        for column, feature in enumerate(row.encoded):
            values = (feature.alpha, feature.beta, feature.lo, feature.hi)
            self._coefficients[:, index, column] = torch.tensor(values, device=self.device)
        self._fill(self._watched[index], self._bank.acquire(row.watched))

    @staticmethod
    def _fill(table_row: Tensor, slots: Sequence[int]) -> None:
        table_row.zero_()
        table_row[: len(slots)] = torch.tensor(slots, dtype=torch.long, device=table_row.device)
