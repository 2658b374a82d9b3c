"""Request bodies, stream events and responses of `/api/compare`, `/api/sweep` and `/api/calibrate`."""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import ConfigDict, Field, FiniteFloat, model_validator
from pydantic_core import PydanticCustomError

from millm.protocol.request import INT64, ChatMessage, GenerationFields, RequestModel, Within
from millm.protocol.response import Extension, FinishReason, Usage

MAX_SWEEP_TOKENS = 256
"""Maximum `max_tokens` of a sweep."""
Seed = Annotated[int, Within(-INT64, INT64 - 1)]
Scale = Annotated[FiniteFloat, Within(-10, 10)]


class ExperimentRequest(GenerationFields):
    """The fields of a chat or completion with one answer; steering, profile, or the active steering."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[
        str, Field(max_length=1024, description="`<model>` or `<model>:<profile>`; default: the model that is loaded.")
    ] = ""
    messages: Annotated[list[ChatMessage], Field(max_length=2048)] = Field(default_factory=list)
    prompt: Annotated[
        str | None, Field(description="Instead of `messages`: a text to complete, without a template.")
    ] = None
    system_prompt: Annotated[
        str | None, Field(min_length=1, description="Also answer with the base model and this in front of `messages`.")
    ] = None

    @model_validator(mode="after")
    def _check_question(self) -> "ExperimentRequest":
        if bool(self.messages) == (self.prompt is not None):
            raise PydanticCustomError("one_question", "Input should have `messages` or a `prompt`, and not both")
        if self.system_prompt is not None and not self.messages:
            raise PydanticCustomError(
                "system_prompt_alone", "`system_prompt` goes with `messages`, not with a `prompt`"
            )
        if self.n != 1 or self.activations is not None or self.stream_options.include_usage:
            raise PydanticCustomError(
                "not_here", "`n`, `activations` and `stream_options` are not for experiments; leave them out"
            )
        return self


class CompareRequest(ExperimentRequest):
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    stream: Annotated[bool, Field(description="False: one JSON object, when all is written.")] = True


class MeasuredExperimentRequest(ExperimentRequest):
    """An experiment whose answers are measured."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=8, description="One answer each.")] = Field(
        default_factory=lambda: [1, 2]
    )
    max_tokens: Annotated[int, Within(1, MAX_SWEEP_TOKENS)] = 64
    temperature: Annotated[float, Within(0, 2)] = 0.7

    @model_validator(mode="after")
    def _check_seeds(self) -> "MeasuredExperimentRequest":
        if self.seed is not None:
            raise PydanticCustomError("seeds_instead", "Input should have `seeds`, a list, instead of `seed`")
        if len(set(self.seeds)) < len(self.seeds):
            raise PydanticCustomError("seeds_twice", "`seeds` should hold each seed once")
        return self


class SweepRequest(MeasuredExperimentRequest):
    scales: Annotated[
        list[Scale],
        Field(min_length=2, max_length=21, description="What all strengths are multiplied with; 0: the base model."),
    ]
    stream: Annotated[bool, Field(description="False: one JSON object, when all is measured.")] = True

    @model_validator(mode="after")
    def _check_scales(self) -> "SweepRequest":
        if len(set(self.scales)) < len(self.scales):
            raise PydanticCustomError("scales_twice", "`scales` should hold each number once")
        return self


class Guard(RequestModel):
    """The limits within which an answer counts as coherent."""

    model_config = ConfigDict(extra="forbid")

    max_perplexity_ratio: Annotated[
        float, Field(gt=1, le=1000, description="Perplexity under the base model, steered / base.")
    ] = 3.0
    max_repetition: Annotated[
        float, Field(gt=0, le=1, description="Share of 3-word sequences that were there before.")
    ] = 0.3


class CalibrateRequest(MeasuredExperimentRequest):
    guard: Guard = Guard()
    most: Annotated[float, Field(gt=0, le=10, description="The largest multiple that is tried.")] = 2.0

    @model_validator(mode="after")
    def _check_unstreamed(self) -> "CalibrateRequest":
        if self.stream or self.system_prompt is not None:
            raise PydanticCustomError("not_calibrated", "`stream` and `system_prompt` are not for this; leave them out")
        return self


# ------------------------------------------------------------------------------------------------------ side by side


class CompareStart(msgspec.Struct, frozen=True, kw_only=True):
    """The first event."""

    model: str
    seed: int
    """Reproduces the answers."""
    columns: tuple[str, ...]
    """`baseline`, `steered`, and `system_prompt` if given."""


class ColumnText(msgspec.Struct, frozen=True, kw_only=True):
    """The next part of one column's text."""

    column: str
    text: str = ""
    reasoning: str | UnsetType = UNSET


class ColumnEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one column."""

    column: str
    finish_reason: FinishReason
    usage: Usage
    receipt: Extension


class CompareEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last event."""

    divergence: int | None
    """The first token position, from 0, at which `steered` differs from `baseline`; null where they are equal."""
    prompt_tokens: dict[str, int]
    """Tokens of each column's prompt."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column, complete."""

    column: str
    text: str
    reasoning: str | UnsetType = UNSET
    finish_reason: FinishReason
    usage: Usage
    receipt: Extension


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison, complete."""

    model: str
    seed: int
    columns: tuple[Column, ...]
    divergence: int | None
    prompt_tokens: dict[str, int]


# --------------------------------------------------------------------------------------------------- one after another


class SweepStart(msgspec.Struct, frozen=True, kw_only=True):
    """The first event."""

    model: str
    scales: tuple[float, ...]
    seeds: tuple[int, ...]
    total: int
    """Number of points."""


class MeasuredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer at one multiple of the strengths, measured."""

    scale: float | None
    """None: the base model with the system prompt."""
    seed: int
    text: str
    tokens: int
    nll: float | None
    """Mean −ln p of its tokens under the base model, in nats; null for an answer without tokens."""
    perplexity: float | None
    """exp(nll)."""
    kl: float | None
    """KL(steered ‖ base) at its tokens, in nats; null for the system prompt."""
    repetition: float
    """Share of 3-word sequences that repeat an earlier one."""
    finish_reason: FinishReason
    done: int = 0
    """Number of points so far."""


class ScaleMeans(msgspec.Struct, frozen=True, kw_only=True):
    """The means of one multiple over the seeds."""

    scale: float | None
    answers: int
    tokens: float
    perplexity: float | None
    """exp of the mean `nll`."""
    kl: float | None
    repetition: float


class SweepEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last event: a summary per multiple."""

    summary: tuple[ScaleMeans, ...]
    prompt_tokens: int
    system_prompt_tokens: int | UnsetType = UNSET
    """Additional tokens of the system prompt."""


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep, complete."""

    model: str
    points: tuple[MeasuredAnswer, ...]
    summary: tuple[ScaleMeans, ...]
    prompt_tokens: int
    system_prompt_tokens: int | UnsetType = UNSET


class Strength(msgspec.Struct, frozen=True, kw_only=True):
    """A feature at the suggested multiple."""

    index: int
    sae: str | None
    strength: float
    unit: str
    mode: str


class GuardLimits(msgspec.Struct, frozen=True, kw_only=True):
    max_perplexity_ratio: float
    max_repetition: float


class SteeringCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """A suggestion, not applied."""

    model: str
    scale: float | None
    """The largest measured multiple within the guard; null without one."""
    strengths: tuple[Strength, ...]
    note: str
    points: tuple[ScaleMeans, ...]
    """Every measured multiple, including 0."""
    guard: GuardLimits
