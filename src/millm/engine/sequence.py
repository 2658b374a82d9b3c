"""One sequence while it runs: the request that never changes, and how far it has come."""

import time
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from millm.engine.messages import Embed, Generate, Judge, Reading, Survey, Text, Watch
from millm.sae.steering import Steering


@dataclass(eq=False)
class Sequence:
    """Owned by the engine's loop. `cache` belongs to the runner, `sampler` to the sampler, `taps` to the taps."""

    request: Generate
    steering: Steering | None = None
    """The request's, or what is active by now if it follows that."""
    watch: tuple[Watch, ...] = ()
    generated: list[int] = field(default_factory=list)
    fed: int = 0
    """Tokens that went through the model; their keys and values are in the cache."""
    cached: int = 0
    """Tokens of the prompt whose keys and values were there already."""
    prefilling: bool = True
    """Not yet through with what it came with: its tokens go through the model by themselves, in chunks."""
    text: Text | None = None
    """What is asked about it in a pass of its own; None: it is to be continued."""
    cancelled: bool = False
    passed_over: int = 0
    """How often a later one started before it."""
    due: float | None = None
    """When its deadline is, on the monotonic clock."""
    scored: int = 0
    """Tokens of the prompt whose likelihood was reported, where that is asked for."""
    readings: list[Reading] = field(default_factory=list)
    """Of chunks that chose no token; they go out with the next that does."""
    cache: Any = None
    sampler: Any = None
    taps: Any = None

    @classmethod
    def of(cls, request: Generate) -> "Sequence":
        seconds = request.deadline_seconds
        due = None if seconds is None else time.monotonic() + seconds
        return cls(request, steering=request.steering, watch=request.watch, due=due)

    @classmethod
    def of_text(cls, text: Text) -> "Sequence":
        sequence = cls.of(_as_request(text))
        sequence.text = text
        if isinstance(text, Judge):
            sequence.generated = list(text.answer)
        return sequence

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def length(self) -> int:
        return len(self.request.prompt) + len(self.generated)

    @property
    def unfed(self) -> tuple[int, ...]:
        """The prompt at first, then the token chosen last; both, when it has to begin again."""
        prompt = self.request.prompt
        return (*prompt[self.fed :], *self.generated[max(self.fed - len(prompt), 0) :])

    @property
    def most_tokens(self) -> int:
        """It never has more than these in the cache."""
        return len(self.request.prompt) + self.request.max_tokens

    @property
    def is_at_limit(self) -> bool:
        return len(self.generated) >= self.request.max_tokens

    @property
    def is_unscored(self) -> bool:
        """Its prompt has to go through the model for how likely it is."""
        return self.request.prompt_logprobs is not None and self.scored < len(self.request.prompt) - 1

    def begin_again(self) -> None:
        """Its keys and values are lost: everything it has is fed once more."""
        self.fed = 0
        self.prefilling = True


def _as_request(text: Text) -> Generate:
    """All of it is a prompt, save for the answer that is judged."""
    common: dict[str, Any] = {
        "id": text.id,
        "max_tokens": 0,
        "deadline_seconds": text.deadline_seconds,
        "model": text.model,
    }
    match text:
        case Embed():  # what a watch asks of generated tokens is told of these
            watch = tuple(replace(watch, tokens="prompt") for watch in text.watch)
            return Generate(prompt=text.tokens, watch=watch, **common)
        case Judge():
            return Generate(prompt=text.prompt, steering=text.steering, **common)
        case Survey():
            return Generate(prompt=text.tokens, **common)
