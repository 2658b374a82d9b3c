"""Finding a feature by the words of its label, or by its number. Lexical: knows no meaning, only letters."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from millm.hub.label_lines import Label

_NON_WORD = re.compile(r"[\W_]+")


class _IndexedLabel(NamedTuple):
    words: str
    """Of the label, each behind a space."""
    label: Label


class LabelMatch(NamedTuple):
    """How well it fits, least first, and what was found."""

    rank: int
    length: int
    label: Label


@dataclass(frozen=True)
class LabelIndex:
    """The labels of one SAE, ready to be searched."""

    _entries: Sequence[_IndexedLabel]
    """By index."""
    _by_index: dict[int, Label]

    @classmethod
    def from_labels(cls, labels: Iterable[Label]) -> "LabelIndex":
        by_index = {label.index: label for label in sorted(labels, key=lambda label: label.index)}
        return cls(
            [_IndexedLabel(_normalize_words(label.label), label) for label in by_index.values() if label.label],
            by_index,
        )

    def search(self, text: str) -> list[LabelMatch]:
        """Every word of `text` must be in a label; all labels for an empty one.

        First the feature of that number, then labels that are just that, then those with words that begin so, then
        those that have the letters inside; the shorter first, and of those alike the lower index.
        """
        wanted = _normalize_words(text)
        inside = wanted.split()
        if text.strip() and not inside:
            return []
        starts = [f" {word}" for word in inside]
        fitting = self._entries
        for word in inside:
            fitting = [entry for entry in fitting if word in entry.words]
        found = [
            LabelMatch(_rank(words, wanted, starts), len(words) if inside else 0, label) for words, label in fitting
        ]
        return sorted(
            [*self._match_by_number(text.strip()), *found], key=itemgetter(0, 1)
        )  # those alike stay as they are

    def _match_by_number(self, text: str) -> list[LabelMatch]:
        if not (text.isascii() and text.isdigit() and len(text) <= 10):
            return []
        label = self._by_index.get(int(text))
        is_found_anyway = label is None or _normalize_words(text).strip() in _normalize_words(label.label)
        return [] if label is None or is_found_anyway else [LabelMatch(-1, 0, label)]


def _rank(words: str, query: str, prefixes: Sequence[str]) -> int:
    if words == query:
        return 0
    return 1 if all(map(words.__contains__, prefixes)) else 2


def _normalize_words(text: str) -> str:
    """Lower case, one space before each word, nothing else between them."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _NON_WORD.sub(" ", f" {plain}").rstrip()
