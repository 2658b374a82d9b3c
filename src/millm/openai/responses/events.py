"""The events of a streamed response as OpenAI publishes them (openai-python, `types/responses`).

Each is numbered when it is sent; until then its number is 0.
"""

import msgspec

from millm.openai.responses.answer import ContentPart, OutputItem, ResponseObject
from millm.protocol.response import TokenLogprob


class ResponseStreamEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What all have in common, but for their `type`."""

    sequence_number: int = 0


# ---------------------------------------------------------------------------------------------- of the whole response


class ResponseEvent(ResponseStreamEvent, frozen=True, kw_only=True):
    response: ResponseObject


class ResponseCreated(ResponseEvent, frozen=True, kw_only=True, tag="response.created"):
    pass


class ResponseInProgress(ResponseEvent, frozen=True, kw_only=True, tag="response.in_progress"):
    pass


class ResponseCompleted(ResponseEvent, frozen=True, kw_only=True, tag="response.completed"):
    pass


class ResponseIncomplete(ResponseEvent, frozen=True, kw_only=True, tag="response.incomplete"):
    pass


class ResponseFailed(ResponseEvent, frozen=True, kw_only=True, tag="response.failed"):
    pass


class ErrorEvent(ResponseStreamEvent, frozen=True, kw_only=True, tag="error"):
    code: str
    message: str
    param: str | None


# -------------------------------------------------------------------------------------------------------- of one item


class ItemAdded(ResponseStreamEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class ItemDone(ResponseStreamEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    output_index: int
    item: OutputItem


class ItemEvent(ResponseStreamEvent, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class ArgumentsDelta(ItemEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(ItemEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    arguments: str


# -------------------------------------------------------------------------------------------------- of its only part


class PartEvent(ItemEvent, frozen=True, kw_only=True):
    content_index: int = 0


class PartAdded(PartEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    part: ContentPart


class PartDone(PartEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    part: ContentPart


class TextDelta(PartEvent, frozen=True, kw_only=True, tag="response.output_text.delta"):
    delta: str
    logprobs: tuple[TokenLogprob, ...] = ()


class TextDone(PartEvent, frozen=True, kw_only=True, tag="response.output_text.done"):
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(PartEvent, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    delta: str


class ReasoningDone(PartEvent, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    text: str
