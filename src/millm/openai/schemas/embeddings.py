"""The body of `/v1/embeddings`, and its answer."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from millm.openai.schemas.common import RequestModel
from millm.profiles.schema import ActivationsField

MAX_INPUTS = 2048
"""OpenAI's own limit."""

Input = str | list[int]
InputField = str | list[str] | list[int] | list[list[int]]


def as_inputs(sent: Any) -> list[Input]:
    """A text, token ids, or a list of one of them: always a list of inputs."""
    inputs = [sent] if _is_ids(sent) or isinstance(sent, str) else sent
    if isinstance(inputs, list) and 0 < len(inputs) <= MAX_INPUTS and (_are_texts(inputs) or _are_ids(inputs)):
        return inputs
    raise PydanticCustomError(
        "input_type",
        "Input should be a string, a list of token ids, or a list of 1 to {most} of one of them; none of them empty",
        {"most": MAX_INPUTS},
    )


def _are_texts(inputs: list[Any]) -> bool:
    return all(isinstance(text, str) and text for text in inputs)


def _are_ids(inputs: list[Any]) -> bool:
    return all(_is_ids(ids) for ids in inputs)


def _is_ids(sent: Any) -> bool:
    return isinstance(sent, list) and len(sent) > 0 and all(type(token) is int and token >= 0 for token in sent)


class EmbeddingRequest(RequestModel):
    model: Annotated[str, Field(min_length=1, description="`<model>`; a profile changes nothing in a vector.")]
    input: Annotated[
        list[Input],
        PlainValidator(as_inputs, json_schema_input_type=InputField),
        Field(description="Texts or token ids; at most 2048 of them."),
    ]
    encoding_format: Annotated[Literal["float", "base64"], Field(description="`base64`: little-endian float32.")] = (
        "float"
    )
    dimensions: Annotated[int | None, Field(ge=1, description="Only the first so many numbers, at length 1 again.")] = (
        None
    )
    profile: Annotated[str | None, Field(description="Accepted, and changes nothing.")] = None
    activations: Annotated[
        ActivationsField | None, Field(description="Read at every token; `tokens` and `when` change nothing.")
    ] = None


class InputActivation(msgspec.Struct, frozen=True, kw_only=True):
    """Activations of one SAE at one token."""

    input: int
    """Which of the inputs."""
    sae: str
    position: int
    token: str
    values: tuple[float, ...]
    top: tuple[tuple[int, float], ...] | UnsetType
    """Left out at tokens where the whole dictionary was not read."""


class EmbeddingExtension(msgspec.Struct, frozen=True, kw_only=True):
    """`millm` in the answer: nothing was steered, and what was watched."""

    profile: None = None
    steering: None = None
    tokens_steered: int = 0
    activations: tuple[InputActivation, ...] | UnsetType = UNSET
    sample_every: int | UnsetType = UNSET
    """Where `top_k` was asked for: positions that are a multiple of this have a `top`."""


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """One input's vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: str | msgspec.Raw
    """base64, or a list of numbers."""


class EmbeddingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingUsage
    millm: EmbeddingExtension = EmbeddingExtension()
