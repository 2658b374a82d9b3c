"""One SAE's tap on a hook point: tables in, steered hidden states and readings out.

Changing features, strengths, requests or watch lists writes rows of these tables between steps; the hook itself never
changes. Row 0 is exact zero: a step in which every sequence has row 0 leaves the model's own tensor untouched.

Per row r and feature j (formula: `sae/steering.py`; the same core design as EasySteer's in-graph tables):

    1. a_j = activation of feature j on x, the hook tensor before steering, in fp32 and residual units
    2. c_j = clip(alpha_j + beta_j·a_j, lo_j, hi_j)
    3. delta = gain·Σ c_j·d_j, where `add` features were summed into one vector when the row was written
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from millm.engine.messages import Watch
from millm.errors import InsufficientMemory, InvalidSteering
from millm.sae.activations import FeatureRows
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.steering import MAX_ENCODED_FEATURES, Coefficients, reads_activation
from millm.sae.tables import FeatureBank, RowTable

MAX_ROWS = 64
"""Distinct (steering, watch list) pairs live at once."""
MAX_WATCHED_FEATURES = 128


@dataclass(frozen=True)
class TapRow:
    """What one tap does for one sequence: the key of a table row."""

    features: tuple[Coefficients, ...] = ()
    watch: Watch | None = None

    @property
    def encoded(self) -> tuple[Coefficients, ...]:
        return tuple(feature for feature in self.features if reads_activation(feature))

    @property
    def watched(self) -> tuple[int, ...]:
        return self.watch.features if self.watch else ()


@dataclass(frozen=True)
class TapStep:
    """Which rows this forward pass uses; written before the pass, read by the hook."""

    rows: Tensor  # [B] int64
    keep: Tensor  # [B, T] float32, 1 where a delta applies
    encoded: int
    """Columns of the coefficient table in use."""
    watched: int
    """Columns of the watch table in use."""
    top_k: int
    steers: bool
    """False when every row only watches: the hidden states are then left untouched."""
    after: Tensor  # [B, 1, 1] bool: read this row's activations after steering


@dataclass(frozen=True)
class TapOutput:
    """What a pass left behind, still on the device."""

    ratio: Tensor | None = None  # [B, T] ‖delta‖ / ‖x‖, 0 where nothing was added
    watched: Tensor | None = None  # [B, T, M]
    top_values: Tensor | None = None  # [B, T, k]
    top_indices: Tensor | None = None  # [B, T, k]


class Tap:
    """Tables of one attached SAE. Not thread-safe: the engine's loop owns it."""

    def __init__(self, sae: SparseAutoencoder, device: torch.device) -> None:
        self.sae = sae
        self.device = device
        self.output = TapOutput()
        self._step: TapStep | None = None
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

    def prepare(self, rows: Sequence[int], keep: Sequence[Sequence[bool]]) -> None:
        """Choose the rows of the next pass. `keep[b][t]` is False where token t of row b is left alone."""
        self.output = TapOutput()
        live = [self._rows.key(row) for row in rows if row != 0]
        if not live:
            self._step = None
            return
        watches = [row.watch for row in live if row.watch]
        self._step = TapStep(
            rows=torch.tensor(rows, device=self.device),
            keep=torch.tensor(keep, dtype=torch.float32, device=self.device),
            encoded=max(len(row.encoded) for row in live),
            watched=max((len(watch.features) for watch in watches), default=0),
            top_k=max((watch.top_k for watch in watches), default=0),
            steers=any(row.features for row in live),
            after=torch.tensor([self._reads_after(row) for row in rows], device=self.device)[:, None, None],
        )

    def _reads_after(self, row: int) -> bool:
        watch = self._rows.key(row).watch if row else None
        return watch is not None and watch.when == "after"

    # -------------------------------------------------------------------------------------------- in the pass

    def __call__(self, hidden: Tensor) -> Tensor | None:
        """The hook: `hidden [B, T, d]` in, the same with deltas added out; None leaves it untouched."""
        step = self._step
        if step is None:
            return None
        x = hidden.float()
        if not step.steers:
            self.output = self._read(x, step)
            return None
        delta = self._delta_of(x, step) * step.keep[..., None]  # [B, T, d]
        steered = x + delta
        ratio = delta.norm(dim=-1) / x.norm(dim=-1).clamp_min(1e-12)  # [B, T]
        self.output = dataclasses.replace(self._read(torch.where(step.after, steered, x), step), ratio=ratio)
        return steered.to(hidden.dtype)

    def _delta_of(self, x: Tensor, step: TapStep) -> Tensor:
        delta = self._delta[step.rows][:, None]  # [B, 1, d]
        if not step.encoded:
            return delta
        features = self._steered[step.rows, : step.encoded]  # [B, K]
        alpha, beta, lo, hi = self._coefficients[:, step.rows, None, : step.encoded]  # each [B, 1, K]
        activations, gain = self._activations(x, features)
        c = (alpha + beta * activations).clamp(lo, hi)  # [B, T, K]
        steered: Tensor = delta + gain * (c @ self._bank.decoder(features))
        return steered

    def _activations(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor | float]:
        """Activations [B, T, K] of the bank slots `features [B, K]`, and the gain back to residual units."""
        z, gain = self.sae.normalise(x)
        if self.sae.config.sparse_readable:
            return self._bank.rows[features].activations(z), gain
        every = self.sae.activations(x)  # [B, T, F]
        index = self._bank.feature_ids[features][:, None].expand(-1, x.shape[1], -1)
        return every.gather(-1, index), gain

    def _read(self, x: Tensor, step: TapStep) -> TapOutput:
        watched = top = None
        if step.watched:
            watched, _ = self._activations(x, self._watched[step.rows, : step.watched])
        if step.top_k:
            top = self.sae.activations(x).topk(step.top_k, dim=-1)
        return TapOutput(
            watched=watched,
            top_values=top.values if top else None,
            top_indices=top.indices if top else None,
        )

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
        self._delta[index] = self._sum_of(added)
        slots = self._bank.acquire(feature.index for feature in row.encoded)
        self._fill(self._steered[index], slots)
        self._coefficients[:, index] = 0.0
        for column, feature in enumerate(row.encoded):
            values = (feature.alpha, feature.beta, feature.lo, feature.hi)
            self._coefficients[:, index, column] = torch.tensor(values, device=self.device)
        self._fill(self._watched[index], self._bank.acquire(row.watched))

    def _sum_of(self, features: Sequence[Coefficients]) -> Tensor:
        """Σ strength · unit decoder row  # [d]"""
        if not features:
            return torch.zeros(self.sae.config.d_out, device=self.device)
        rows: FeatureRows = self.sae.features([feature.index for feature in features], device=self.device)
        strengths = torch.tensor([feature.alpha for feature in features], device=self.device)
        return strengths @ rows.dec

    @staticmethod
    def _fill(table_row: Tensor, slots: Sequence[int]) -> None:
        table_row.zero_()
        table_row[: len(slots)] = torch.tensor(slots, dtype=torch.long, device=table_row.device)
