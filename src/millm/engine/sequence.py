"""One sequence while it runs: the request that never changes, and how far it has come."""

import time
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from millm.engine.messages import Embed, Generate, Reading, ScanFeatures, ScoreAnswer, TextCommand
from millm.sae.steering import Steering, Watch


@dataclass(eq=False)
class Sequence:
    """Owned by the engine's loop. `cache` belongs to the runner, `sampler` to the sampler, `taps` to the taps."""

    request: Generate
    steering: Steering | None = None
    """The request's, or what is active by now if it follows that."""
    watch: tuple[Watch, ...] = ()
    output_ids: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    """Tokens that went through the model; their keys and values are in the cache."""
    num_cached_tokens: int = 0
    """Tokens of the prompt whose keys and values were there already."""
    is_prefilling: bool = True
    """Not yet through with what it came with: its tokens go through the model by themselves, in chunks."""
    text_command: TextCommand | None = None
    """What is asked about it in a pass of its own; None: it is to be continued."""
    is_cancelled: bool = False
    times_passed_over: int = 0
    """How often a later one started before it."""
    deadline: float | None = None
    """When its deadline is, on the monotonic clock."""
    num_scored_tokens: int = 0
    """Tokens of the prompt whose likelihood was reported, where that is asked for."""
    readings: list[Reading] = field(default_factory=list)
    """Of chunks that chose no token; they go out with the next that does."""
    cache: Any = None
    sampler_state: Any = None
    hook_state: Any = None

    @classmethod
    def from_request(cls, request: Generate) -> "Sequence":
        seconds = request.deadline_seconds
        due = None if seconds is None else time.monotonic() + seconds
        return cls(request, steering=request.steering, watch=request.watch, deadline=due)

    @classmethod
    def from_text(cls, text: TextCommand) -> "Sequence":
        sequence = cls.from_request(_text_as_request(text))
        sequence.text_command = text
        if isinstance(text, ScoreAnswer):
            sequence.output_ids = list(text.answer)
        return sequence

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def length(self) -> int:
        return len(self.request.prompt) + len(self.output_ids)

    @property
    def uncomputed_tokens(self) -> tuple[int, ...]:
        """The prompt at first, then the token chosen last; both, when it has to begin again."""
        prompt = self.request.prompt
        return (*prompt[self.num_computed_tokens :], *self.output_ids[max(self.num_computed_tokens - len(prompt), 0) :])

    @property
    def max_length(self) -> int:
        """It never has more than these in the cache."""
        return len(self.request.prompt) + self.request.max_tokens

    @property
    def is_at_limit(self) -> bool:
        return len(self.output_ids) >= self.request.max_tokens

    @property
    def needs_prompt_scores(self) -> bool:
        """Its prompt has to go through the model for how likely it is."""
        return self.request.prompt_logprobs is not None and self.num_scored_tokens < len(self.request.prompt) - 1

    def restart(self) -> None:
        """Its keys and values are lost: everything it has is fed once more."""
        self.num_computed_tokens = 0
        self.is_prefilling = True


def _text_as_request(text: TextCommand) -> Generate:
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
        case ScoreAnswer():
            return Generate(prompt=text.prompt, steering=text.steering, **common)
        case ScanFeatures():
            return Generate(prompt=text.tokens, **common)
