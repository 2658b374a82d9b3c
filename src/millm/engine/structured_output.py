"""Grammar constraints: llguidance's bitmask of allowed tokens as a torch mask.

llguidance's own torch kernel is not used: its first call compiles for 13 seconds and needs a C compiler.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer
from torch import Tensor

from millm.engine.failures import first_line
from millm.errors import EngineFailed, InvalidRequest


@dataclass(frozen=True)
class GrammarVocabulary:
    """One model's tokens."""

    folder: Path
    size: int  # Width of the logits; the tokenizer may have fewer or more tokens
    stop_ids: tuple[int, ...]
    special_ids: tuple[int, ...]  # Forbidden by every grammar, although their names are text

    def new_constraint(self, grammar: str | None) -> "GrammarConstraint | None":
        """Raises InvalidRequest for an invalid grammar, or if the model supports none."""
        if grammar is None:
            return None
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise InvalidRequest(f"the grammar cannot be followed: {_matcher_error(matcher)}", param="response_format")
        return GrammarConstraint(matcher, self)

    @cached_property
    def forbidden_ids(self) -> Tensor:
        ids = set(self.special_ids) - set(self.stop_ids)
        return torch.tensor(sorted(id for id in ids if id < self.size), dtype=torch.long)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """Needs a quarter of a second to construct."""
        file = self.folder / "tokenizer.json"
        if not file.is_file() or not self.stop_ids:
            raise InvalidRequest("this model has no tokenizer.json or no end-of-text token: it takes no grammar")
        text = file.read_text(encoding="utf-8")
        tokenizer_size = Tokenizer.from_str(text).get_vocab_size()
        return LLTokenizer(text, n_vocab=max(tokenizer_size, self.size), eos_token=list(self.stop_ids))


@dataclass(frozen=True)
class GrammarConstraint:
    """A grammar's state for one sequence."""

    _matcher: LLMatcher
    _vocabulary: GrammarVocabulary

    @property
    def is_complete(self) -> bool:
        """True if no token can follow."""
        return bool(self._matcher.is_stopped())

    def refused(self, device: torch.device) -> Tensor:
        """→ `[V]`, True for each forbidden next token. Raises EngineFailed if all are."""
        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1  # [V/8, 8], lowest bit first
        allowed = bits.flatten()[: self._vocabulary.size].bool()
        allowed[self._vocabulary.forbidden_ids] = False
        if not bool(allowed.any()):
            raise EngineFailed(f"the grammar allows no token of this model here: {_matcher_error(self._matcher)}")
        return ~allowed.to(device)

    def accept_token(self, token: int) -> None:
        self._matcher.consume_token(token)


def _matcher_error(matcher: LLMatcher) -> str:
    return first_line(matcher.get_error() or "dead end", 200)
