"""The storage behind a tap: refcounted row numbers, and the encoder and decoder rows of the features in use."""

import dataclasses
from collections.abc import Hashable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from millm.errors import InsufficientMemory
from millm.sae.activations import FeatureRows
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.sizes import FEATURE_BANK_SIZE

Key = TypeVar("Key", bound=Hashable)


class RowTable(Generic[Key]):
    """Equal keys share a number; a number is free again when its last user released it. 0 is nobody's."""

    def __init__(self, size: int) -> None:
        self._free = list(range(size, 0, -1))
        self._index: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._users: dict[int, int] = {}

    def has_room(self, key: Key) -> bool:
        return bool(self._free) or key in self._index

    def acquire(self, key: Key) -> tuple[int, bool]:
        """(number, is_new)."""
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
        """The key, if this was its last user."""
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
    """Rows of the features in use, gathered from the memory-mapped SAE; slot 0 is all zero."""

    def __init__(self, sae: SparseAutoencoder, device: torch.device) -> None:
        self._sae = sae
        self._device = device
        self._slots: RowTable[int] = RowTable(FEATURE_BANK_SIZE)
        self._slot_of: dict[int, int] = {}
        self.feature_rows = _zeros_like(sae.features([0], device=device), FEATURE_BANK_SIZE + 1)
        self.feature_ids = torch.zeros(FEATURE_BANK_SIZE + 1, dtype=torch.long, device=device)

    @property
    def free(self) -> int:
        return self._slots.free

    @property
    def memory(self) -> int:
        """Bytes on the device."""
        return self.feature_ids.nbytes + sum(table.nbytes for table in _tensors(self.feature_rows))

    def acquire(self, features: Iterable[int]) -> list[int]:
        return [self._acquire(feature) for feature in features]

    def release(self, features: Iterable[int]) -> None:
        for feature in features:
            if self._slots.release(self._slot_of[feature]) is not None:
                del self._slot_of[feature]

    def decoder(self, slots: Tensor) -> Tensor:
        """Unit decoder rows  # [B, K] → [B, K, d]"""
        return self.feature_rows.dec[slots]

    def _acquire(self, feature: int) -> int:
        slot, is_new = self._slots.acquire(feature)
        if is_new:
            self._slot_of[feature] = slot
            self.feature_ids[slot] = feature
            for table, row in zip(
                _tensors(self.feature_rows), _tensors(self._sae.features([feature], device=self._device)), strict=True
            ):
                table[slot] = row[0]
        return slot


def _tensors(rows: FeatureRows) -> list[Tensor]:
    values = (getattr(rows, field.name) for field in dataclasses.fields(rows))
    return [value for value in values if isinstance(value, Tensor)]


def _zeros_like(rows: FeatureRows, size: int) -> FeatureRows:
    empty: dict[str, Any] = {
        field.name: value.new_zeros((size, *value.shape[1:]))
        for field in dataclasses.fields(rows)
        if isinstance(value := getattr(rows, field.name), Tensor)
    }
    return dataclasses.replace(rows, **empty)
