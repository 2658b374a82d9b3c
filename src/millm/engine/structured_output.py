"""What a grammar allows next, as a mask over the vocabulary: llguidance keeps the automaton, we unpack its bits.

Not through llguidance's own torch kernel, which is compiled at its first call: 13 seconds, and a C compiler.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer
from torch import Tensor

from millm.errors import EngineFailed, InvalidRequest


@dataclass(frozen=True)
class GrammarVocabulary:
    """One model's tokens, as grammars see them."""

    folder: Path
    size: int
    """Width of the logits; the tokenizer may know fewer tokens, or more."""
    stop_ids: tuple[int, ...]
    special_ids: tuple[int, ...]
    """Never part of a text, so no grammar allows them: not even as the characters of their names."""

    def new_constraint(self, grammar: str | None) -> "GrammarConstraint | None":
        """None for none. Raises InvalidRequest where the grammar, or a grammar at all, cannot be had."""
        if grammar is None:
            return None
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise InvalidRequest(f"the grammar cannot be followed: {_first_line(matcher)}", param="response_format")
        return GrammarConstraint(matcher, self)

    @cached_property
    def forbidden_ids(self) -> Tensor:
        """Ids that no grammar may choose."""
        ids = set(self.special_ids) - set(self.stop_ids)
        return torch.tensor(sorted(id for id in ids if id < self.size), dtype=torch.long)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """Made for the first grammar; that takes a quarter of a second."""
        file = self.folder / "tokenizer.json"
        if not file.is_file() or not self.stop_ids:
            raise InvalidRequest("this model has no tokenizer.json or no token that ends a text: it takes no grammar")
        text = file.read_text(encoding="utf-8")
        known = Tokenizer.from_str(text).get_vocab_size()
        return LLTokenizer(text, n_vocab=max(known, self.size), eos_token=list(self.stop_ids))


@dataclass(frozen=True)
class GrammarConstraint:
    """Where one answer stands in its grammar."""

    _matcher: LLMatcher
    _vocabulary: GrammarVocabulary

    @property
    def is_complete(self) -> bool:
        """Nothing can follow."""
        return bool(self._matcher.is_stopped())

    def refused(self, device: torch.device) -> Tensor:
        """→ `[V]`, True for each token that may not come next. Raises EngineFailed where none may."""
        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1  # [V/8, 8], lowest bit first
        allowed = bits.flatten()[: self._vocabulary.size].bool()
        allowed[self._vocabulary.forbidden_ids] = False
        if not bool(allowed.any()):
            raise EngineFailed(f"the grammar allows no token of this model here: {_first_line(self._matcher)}")
        return ~allowed.to(device)

    def accept_token(self, token: int) -> None:
        """The token was chosen."""
        self._matcher.consume_token(token)


def _first_line(matcher: LLMatcher) -> str:
    return (str(matcher.get_error()).strip().splitlines() or ["it ends nowhere"])[0][:200]
