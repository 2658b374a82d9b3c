"""Keeps a model's control tokens out of what people write: `<|im_end|>` in a message stays ordinary text.

Two private-use characters mark each occurrence before the template is rendered and go while it is encoded,
as transformers does (`sanitize_control_tokens`). A mark that lost its partner in the template is dropped.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

_MARK_START, _MARK_END = "\U000f0000", "\U000f0001"


@dataclass(frozen=True)
class ControlTokens:
    """The strings that have a meaning of their own for one model."""

    _name_pattern: re.Pattern[str]
    _mark_pattern: re.Pattern[str]

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Self:
        longest_first = sorted(names, key=len, reverse=True)
        any_name = "|".join(map(re.escape, longest_first)) or "(?!)"
        return cls(re.compile(any_name), re.compile(f"{_MARK_START}({any_name}){_MARK_END}|[{_MARK_START}{_MARK_END}]"))

    def mark(self, text: str) -> str:
        return self._name_pattern.sub(f"{_MARK_START}\\g<0>{_MARK_END}", text)

    def mark_all(self, value: object) -> Any:
        """A value as JSON has them, with every text in it marked."""
        if isinstance(value, str):
            return self.mark(value)
        if isinstance(value, dict):
            return {self.mark(name): self.mark_all(child) for name, child in value.items()}
        return [self.mark_all(child) for child in value] if isinstance(value, list) else value

    def split(self, marked: str) -> list[tuple[str, bool]]:
        """The pieces of a marked text without its marks, each with True where it was a marked control token."""
        pieces = self._mark_pattern.split(marked)  # text, control token or None, text, control token or None, …, text
        return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]
