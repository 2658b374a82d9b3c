"""What the experiments answer: the events of their streams, and the same as one object."""

import msgspec
from msgspec import UNSET, UnsetType

from millm.protocol.response import Extension, FinishReason, Usage

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
