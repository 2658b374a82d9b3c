"""Activations of one SAE in one answer or text, token after token, in a few bytes each."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, UnsetType

TopFeatures = tuple[tuple[int, float], ...]

TOKEN_OVERHEAD_BYTES = 64
"""Roughly what a token takes besides its numbers: its text, and its place in the lists."""


class TrackedToken(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at one token of a request."""

    index: int
    """Of the choice, or of the input that is embedded."""
    sae: str
    position: int
    """Of the token in prompt + completion."""
    generated: bool
    token: str | None
    """None where the history keeps no texts of that kind."""
    features: tuple[int, ...]
    values: tuple[float, ...]
    """One per feature."""
    top: TopFeatures | UnsetType = UNSET
    after: tuple[float, ...] | UnsetType = UNSET
    """`values` after steering, where both were watched."""
    top_after: TopFeatures | UnsetType = UNSET


@dataclass
class _TopLists:
    """Lists of (feature, activation), one per token, most of them none."""

    features: "array[int]" = field(default_factory=lambda: array("I"))
    values: "array[float]" = field(default_factory=lambda: array("f"))
    ends: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, top: TopFeatures) -> None:
        self.features.extend(feature for feature, _ in top)
        self.values.extend(value for _, value in top)
        self.ends.append(len(self.features))

    def at(self, token: int) -> TopFeatures:
        places = slice(self.ends[token - 1] if token else 0, self.ends[token])
        return tuple(zip(self.features[places], self.values[places], strict=True))


class ActivationTrack:
    """Values are float32, as they came."""

    def __init__(self, index: int, sae: str, features: tuple[int, ...], prompt_tokens: int) -> None:
        """`prompt`: tokens of it."""
        self.index, self.sae, self.features = index, sae, features
        self.values = array("f")
        """[tokens × features], row by row."""
        self.after = array("f")
        self.positions = array("I")
        self._prompt_tokens = prompt_tokens
        self._texts: list[str | None] = []
        self._tops, self._tops_after = _TopLists(), _TopLists()

    def __len__(self) -> int:
        """Tokens."""
        return len(self.positions)

    @staticmethod
    def token_bytes(number_count: int) -> int:
        """Bytes, roughly, of a token with so many of them."""
        return TOKEN_OVERHEAD_BYTES + 4 * number_count

    def add(
        self,
        position: int,
        text: str | None,
        values: Sequence[float],
        top: TopFeatures,
        after: Sequence[float],
        top_after: TopFeatures,
    ) -> None:
        self.positions.append(position)
        self._texts.append(text)
        self.values.extend(values)
        self.after.extend(after)
        self._tops.add(top)
        self._tops_after.add(top_after)

    def tokens(self) -> Iterator[TrackedToken]:
        width = len(self.features)
        for row, position in enumerate(self.positions):
            columns = slice(row * width, (row + 1) * width)
            yield TrackedToken(
                index=self.index,
                sae=self.sae,
                position=position,
                generated=position >= self._prompt_tokens,
                token=self._texts[row],
                features=self.features,
                values=tuple(self.values[columns]),
                top=self._tops.at(row) or UNSET,
                after=tuple(self.after[columns]) or UNSET,
                top_after=self._tops_after.at(row) or UNSET,
            )

    def has_feature(self, feature: int) -> bool:
        """Was it watched by name, or among the most active somewhere?"""
        return feature in self.features or feature in self._tops.features or feature in self._tops_after.features
