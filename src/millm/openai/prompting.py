"""A chat's prompt: its history and its tools as the model's template takes them, as far as they fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import structlog

from millm.errors import ContextLengthExceeded, InvalidRequest
from millm.openai.history import turns
from millm.openai.schemas.chat import ChatRequest
from millm.openai.tools import Tooling
from millm.state import LoadedModel
from millm.text.functions import Function
from millm.text.prompt import Message, Prompt, Rendering

log = structlog.get_logger()

FORCED = "Answer by calling a function; write its arguments as JSON."


@dataclass(frozen=True)
class Written:
    """A prompt, and whether the model reads in it what it may call."""

    prompt: Prompt
    tells_tools: bool


def write_down(model: LoadedModel, body: ChatRequest, tooling: Tooling) -> Written:
    """Tools are left out where the template does not take them, where they leave no room, and where they alone would
    fill more than half of the context; a forced call is described in words where the template does not take tools.

    Raises InvalidRequest or ContextLengthExceeded for a conversation that does not work without them either.
    """
    how = Rendering(
        switches=model.template.switches(body.switches),
        add_generation_prompt=body.generation_prompt,
        continue_final_message=body.continue_final_message,
    )
    told = _with_tools(model, body, how, tooling) if tooling.functions else None
    half = model.facts.context_length // 2
    if told and len(told.ids) <= half:
        return Written(told, True)
    plain = _prompt(model, body, how)
    if told and len(told.ids) < model.facts.context_length and len(told.ids) - len(plain.ids) <= half:
        return Written(told, True)
    if tooling.functions:
        log.info("request.tools_omitted", tools=len(tooling.functions), tokens=told and len(told.ids))
    return Written(plain, not tooling.functions)


def _with_tools(model: LoadedModel, body: ChatRequest, how: Rendering, tooling: Tooling) -> Prompt | None:
    """None where it cannot be said, or not in so little room."""
    try:
        if model.template.accepted.tools:
            return _prompt(model, body, replace(how, tools=tooling.functions))
        return _prompt(model, body, how, [_described(tooling.functions)]) if tooling.is_forced else None
    except InvalidRequest:
        return None


def _prompt(model: LoadedModel, body: ChatRequest, how: Rendering, before: Sequence[Message] = ()) -> Prompt:
    """Calls in the history as the template writes them; where it refuses these, as text."""
    context = model.facts.context_length
    if model.template.accepted.calls:
        try:
            return model.template.prompt([*before, *turns(body.messages, native=True)], how, context_length=context)
        except ContextLengthExceeded:
            raise
        except InvalidRequest:
            log.debug("request.history_as_text")
    return model.template.prompt([*before, *turns(body.messages, native=False)], how, context_length=context)


def _described(functions: Sequence[Function]) -> Message:
    lines = [msgspec.json.encode(function.as_tool()["function"]).decode() for function in functions]
    return Message("system", "\n".join([FORCED, *lines]))
