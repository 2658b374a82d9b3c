"""The body of `/v1/completions`."""

from typing import Annotated, Any

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from millm.openai.schemas.common import GenerationFields
from millm.openai.schemas.within import Within

LEGACY_MAX_TOKENS = 16
"""What OpenAI documents for clients that set no limit here."""

Prompt = str | list[int]
PromptField = str | list[str] | list[int] | list[list[int]]


def as_prompts(sent: Any) -> list[Prompt]:
    """A string, token ids, or a list of either: always a list of prompts."""
    prompts = [sent] if _is_prompt(sent) else sent
    if isinstance(prompts, list) and prompts and all(_is_prompt(prompt) for prompt in prompts):
        return prompts
    raise PydanticCustomError(
        "prompt_type", "Input should be a string, a list of token ids, or a list of one of them; not empty"
    )


def _is_prompt(sent: Any) -> bool:
    return isinstance(sent, str) or (
        isinstance(sent, list) and len(sent) > 0 and all(type(token) is int and token >= 0 for token in sent)
    )


def _empty_prompt() -> list[Prompt]:
    return [""]


class CompletionRequest(GenerationFields):
    prompt: Annotated[list[Prompt], PlainValidator(as_prompts, json_schema_input_type=PromptField)] = Field(
        default_factory=_empty_prompt
    )
    max_tokens: Annotated[int, Field(ge=0)] = LEGACY_MAX_TOKENS
    logprobs: Annotated[int | None, Within(0, 5)] = None
    echo: Annotated[
        bool, Field(description="The answer begins with the prompt, and `logprobs` are told of it too.")
    ] = False
    best_of: Annotated[
        int | None, Within(1, 20), Field(description="So many are written, the `n` likeliest per token are told.")
    ] = None

    @property
    def token_limit(self) -> int:
        return self.max_tokens

    @property
    def samples_per_prompt(self) -> int:
        """Answers to write for each prompt."""
        return self.best_of or self.n

    @property
    def num_logprobs(self) -> int | None:
        """Logprobs are also what the best are known by."""
        return 0 if self.logprobs is None and self.samples_per_prompt > self.n else self.logprobs

    @property
    def num_prompt_logprobs(self) -> int | None:
        return self.logprobs if self.echo else None
