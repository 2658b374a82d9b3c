"""One sequence while it runs: the request that never changes, and how far it has come."""

from dataclasses import dataclass, field
from typing import Any

from millm.engine.messages import Generate


@dataclass(eq=False)
class Sequence:
    """Owned by the engine's loop. `cache` belongs to the runner, `sampler` to the sampler, `taps` to the taps."""

    request: Generate
    generated: list[int] = field(default_factory=list)
    fed: int = 0
    """Tokens that went through the model; their keys and values are in the cache."""
    cancelled: bool = False
    cache: Any = None
    sampler: Any = None
    taps: Any = None

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def unfed(self) -> tuple[int, ...]:
        """The prompt at first, then the token chosen last."""
        prompt = self.request.prompt
        if self.fed < len(prompt):
            return prompt[self.fed :]
        return tuple(self.generated[self.fed - len(prompt) :])

    @property
    def is_at_limit(self) -> bool:
        return len(self.generated) >= self.request.max_tokens
