"""The fields that chat and completions share: strict types, nulls as absent, anything unknown let pass."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic_core import CoreSchema

from millm.engine.messages import SamplingParams
from millm.openai.schemas.complaints import set_fail_fast
from millm.openai.schemas.within import Within
from millm.profiles.schema import ActivationsField, SteeringRequest

INT64 = 2**63

StopString = Annotated[str, StringConstraints(max_length=1000)]


def as_list(stop: Any) -> Any:
    """`stop` is a string or a list of them; empty ones stop nothing."""
    strings = [stop] if isinstance(stop, str) else stop
    return [string for string in strings if string != ""] if isinstance(strings, list) else strings


class RequestModel(BaseModel):
    """Part of a request. `model_extra` holds what we do not know, which clients send all the time."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = set_fail_fast(handler(source))
        return schema

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, sent: Any) -> Any:
        """All but `steering: null`, which asks for the base model."""
        if not isinstance(sent, dict):
            return sent
        return {name: value for name, value in sent.items() if value is not None or name == "steering"}


class StreamOptions(RequestModel):
    include_usage: bool = False


class GenerationFields(RequestModel):
    """What any answer can be asked for."""

    model: Annotated[str, Field(min_length=1, description="`<model>` or `<model>:<profile>`.")]
    temperature: Annotated[float, Within(0, 2)] = 1.0
    top_p: Annotated[float, Within(0, 1)] = 1.0
    top_k: Annotated[int, Within(-1, 1_000_000), Field(description="0 or -1: all tokens.")] = 0
    min_p: Annotated[float, Within(0, 1)] = 0.0
    presence_penalty: Annotated[float, Within(-2, 2)] = 0.0
    frequency_penalty: Annotated[float, Within(-2, 2)] = 0.0
    repetition_penalty: Annotated[
        float, Field(ge=0.01, le=10, description="Divides the logits of tokens that were seen, in prompt and answer.")
    ] = 1.0
    logit_bias: dict[
        Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], Annotated[float, Within(-100, 100)]
    ] = Field(default_factory=dict)
    seed: Annotated[int | None, Within(-INT64, INT64 - 1)] = None
    n: Annotated[int, Within(1, 128)] = 1
    stop: Annotated[list[StopString], BeforeValidator(as_list), Field(max_length=16)] = Field(default_factory=list)
    stop_token_ids: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(max_length=128, description="Tokens that end the answer as well.")
    ] = Field(default_factory=list)
    ignore_eos: Annotated[bool, Field(description="The model's own end tokens do not end the answer.")] = False
    min_tokens: Annotated[int, Field(ge=0, le=1_000_000, description="No token ends the answer before so many.")] = 0
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    profile: Annotated[str | None, Field(description="Name of the steering profile to apply.")] = None
    steering: Annotated[SteeringRequest | None, Field(description="A steering; null or {} is the base model.")] = None
    activations: Annotated[
        ActivationsField | None, Field(description="What to report of which tokens; a list for several SAEs.")
    ] = None

    @property
    def samples_per_prompt(self) -> int:
        """Answers to write for each prompt."""
        return self.n

    @property
    def num_prompt_logprobs(self) -> int | None:
        """How many likely tokens to report with each token of the prompt; None: nothing of it."""
        return None

    @property
    def steering_given(self) -> bool:
        return "steering" in self.model_fields_set

    def sampling(self, choice: int, logprobs: int | None) -> SamplingParams:
        """How the tokens of choice number `choice` are drawn: with a seed of its own, where there is one."""
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            min_tokens=self.min_tokens,
            logit_bias=tuple((int(token), bias) for token, bias in self.logit_bias.items()),
            seed=None if self.seed is None else self.seed + choice,
            logprobs=logprobs,
        )
