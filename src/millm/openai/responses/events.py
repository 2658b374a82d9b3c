"""The events of a streamed response as OpenAI publishes them (openai-python, `types/responses`).

Each is numbered when it is sent; until then its number is 0.
"""

import msgspec

from millm.openai.responses.answer import Item, Part, Response
from millm.openai.schemas.answers import ChosenLikelihood


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What all have in common, but for their `type`."""

    sequence_number: int = 0


# ---------------------------------------------------------------------------------------------- of the whole response


class OfResponse(Event, frozen=True, kw_only=True):
    response: Response


class Created(OfResponse, frozen=True, kw_only=True, tag="response.created"):
    pass


class InProgress(OfResponse, frozen=True, kw_only=True, tag="response.in_progress"):
    pass


class Completed(OfResponse, frozen=True, kw_only=True, tag="response.completed"):
    pass


class Incomplete(OfResponse, frozen=True, kw_only=True, tag="response.incomplete"):
    pass


class Failed(OfResponse, frozen=True, kw_only=True, tag="response.failed"):
    pass


class Error(Event, frozen=True, kw_only=True, tag="error"):
    code: str
    message: str
    param: str | None


# -------------------------------------------------------------------------------------------------------- of one item


class ItemAdded(Event, frozen=True, kw_only=True, tag="response.output_item.added"):
    output_index: int
    item: Item


class ItemDone(Event, frozen=True, kw_only=True, tag="response.output_item.done"):
    output_index: int
    item: Item


class InItem(Event, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class ArgumentsDelta(InItem, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(InItem, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    arguments: str


# -------------------------------------------------------------------------------------------------- of its only part


class InPart(InItem, frozen=True, kw_only=True):
    content_index: int = 0


class PartAdded(InPart, frozen=True, kw_only=True, tag="response.content_part.added"):
    part: Part


class PartDone(InPart, frozen=True, kw_only=True, tag="response.content_part.done"):
    part: Part


class TextDelta(InPart, frozen=True, kw_only=True, tag="response.output_text.delta"):
    delta: str
    logprobs: tuple[ChosenLikelihood, ...] = ()


class TextDone(InPart, frozen=True, kw_only=True, tag="response.output_text.done"):
    text: str
    logprobs: tuple[ChosenLikelihood, ...] = ()


class ReasoningDelta(InPart, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    delta: str


class ReasoningDone(InPart, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    text: str
