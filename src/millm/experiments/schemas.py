"""What the experiments answer: the events of their streams, and the same as one object.

The bodies of `/api/compare`, `/api/sweep` and `/api/calibrate`: one question, its sampling, and a steering.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import ConfigDict, Field, FiniteFloat, model_validator
from pydantic_core import PydanticCustomError

from millm.protocol.request import INT64, ChatMessage, GenerationFields, RequestModel, Within
from millm.protocol.response import Extension, FinishReason, Usage

MAX_SWEEP_TOKENS = 256
"""Of each answer of a sweep."""
Seed = Annotated[int, Within(-INT64, INT64 - 1)]
Scale = Annotated[FiniteFloat, Within(-10, 10)]


class ExperimentRequest(GenerationFields):
    """What a chat or a completion can be asked, of one answer; a steering, a profile, or what is active."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[
        str, Field(max_length=1024, description="`<model>` or `<model>:<profile>`; default: the model that is loaded.")
    ] = ""
    messages: Annotated[list[ChatMessage], Field(max_length=2048)] = Field(default_factory=list)
    prompt: Annotated[
        str | None, Field(description="Instead of `messages`: a text that goes on, without a template.")
    ] = None
    system_prompt: Annotated[
        str | None, Field(min_length=1, description="The base model is asked with this in front of `messages`, too.")
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
    """Answers that are measured."""

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
    """What an answer may become, and still be one."""

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
    """First: what is compared, and with which seed it can be had again."""

    model: str
    seed: int
    columns: tuple[str, ...]
    """`baseline`, `steered`, and `system_prompt` where there is one."""


class ColumnText(msgspec.Struct, frozen=True, kw_only=True):
    """The next of one column's text."""

    column: str
    text: str = ""
    reasoning: str | UnsetType = UNSET


class ColumnEnd(msgspec.Struct, frozen=True, kw_only=True):
    """One column has ended."""

    column: str
    finish_reason: FinishReason
    usage: Usage
    receipt: Extension


class CompareEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Last."""

    divergence: int | None
    """The first token in which `steered` differs from `baseline`, from 0; null: they are the same."""
    prompt_tokens: dict[str, int]
    """Context that each column's question takes."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column whole."""

    column: str
    text: str
    reasoning: str | UnsetType = UNSET
    finish_reason: FinishReason
    usage: Usage
    receipt: Extension


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The same answer several ways, whole."""

    model: str
    seed: int
    columns: tuple[Column, ...]
    divergence: int | None
    prompt_tokens: dict[str, int]


# --------------------------------------------------------------------------------------------------- one after another


class SweepStart(msgspec.Struct, frozen=True, kw_only=True):
    """First: what will be measured."""

    model: str
    scales: tuple[float, ...]
    seeds: tuple[int, ...]
    total: int
    """Points."""


class MeasuredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer at one multiple of the strengths, measured."""

    scale: float | None
    """None: the base model, asked by the system prompt."""
    seed: int
    text: str
    tokens: int
    nll: float | None
    """Mean −ln p of its tokens under the base model, in nats; null for an answer without tokens."""
    perplexity: float | None
    """e to that."""
    kl: float | None
    """KL(steered ‖ base) at its tokens, in nats; null where nothing steers but a system prompt."""
    repetition: float
    """Share of 3-word sequences that were there before."""
    finish_reason: FinishReason
    done: int = 0
    """Points so far."""


class ScaleMeans(msgspec.Struct, frozen=True, kw_only=True):
    """The points of one multiple, over the seeds."""

    scale: float | None
    answers: int
    tokens: float
    perplexity: float | None
    """e to the mean of `nll`."""
    kl: float | None
    repetition: float


class SweepEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Last: every multiple in short."""

    summary: tuple[ScaleMeans, ...]
    prompt_tokens: int
    system_prompt_tokens: int | UnsetType = UNSET
    """What the system prompt takes of the context besides."""


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep, whole."""

    model: str
    points: tuple[MeasuredAnswer, ...]
    summary: tuple[ScaleMeans, ...]
    prompt_tokens: int
    system_prompt_tokens: int | UnsetType = UNSET


class Strength(msgspec.Struct, frozen=True, kw_only=True):
    """A feature at the multiple that is suggested."""

    index: int
    sae: str | None
    strength: float
    unit: str
    mode: str


class GuardLimits(msgspec.Struct, frozen=True, kw_only=True):
    max_perplexity_ratio: float
    max_repetition: float


class SteeringCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """A suggestion; nothing was changed."""

    model: str
    scale: float | None
    """The largest multiple found that keeps to the guard; null: none of those tried does."""
    strengths: tuple[Strength, ...]
    note: str
    points: tuple[ScaleMeans, ...]
    """Every multiple that was tried, 0 among them."""
    guard: GuardLimits
