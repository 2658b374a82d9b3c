"""`longrope` models have two sets of rotary factors, and use the long ones in whatever pass reaches beyond a boundary.

A sequence on the long side of it therefore never shares a pass with shorter ones, its prompt is fed whole, and one
that crosses while it is generated begins again: all of its keys have to be turned by the same factors
(transformers' own `generate` does the same, in Phi3's `prepare_inputs_for_generation`).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LongRopeBoundary:
    tokens: int | None

    @classmethod
    def from_config(cls, config: Any) -> "LongRopeBoundary":
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") != "longrope":
            return cls(None)
        found = rope.get("original_max_position_embeddings") or config.original_max_position_embeddings
        return cls(int(found))

    def is_exceeded(self, length: int) -> bool:
        return self.tokens is not None and length > self.tokens

    def is_crossed(self, length: int) -> bool:
        """By the token that was chosen last."""
        return self.tokens is not None and length == self.tokens + 1
