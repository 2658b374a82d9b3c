"""A chat's prompt: its history and its tools as the model's template takes them, as far as they fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import structlog

from millm.errors import ContextLengthExceeded, InvalidRequest
from millm.loaded import LoadedModel
from millm.openai.history import template_messages
from millm.openai.tools import ToolConfig
from millm.protocol.request import ChatRequest
from millm.text.chat_template import Function, Prompt, PromptMessage, RenderOptions

log = structlog.get_logger()

FORCED_CALL_INSTRUCTION = "Answer by calling a function; write its arguments as JSON."


@dataclass(frozen=True)
class ChatPrompt:
    """A prompt, and whether the model reads in it what it may call."""

    prompt: Prompt
    includes_tools: bool


def render_prompt(model: LoadedModel, body: ChatRequest, tooling: ToolConfig) -> ChatPrompt:
    """Tools are left out where the template does not take them, where they leave no room, and where they alone would
    fill more than half of the context; a forced call is described in words where the template does not take tools.

    Raises InvalidRequest or ContextLengthExceeded for a conversation that does not work without them either.
    """
    how = RenderOptions(
        template_kwargs=model.chat_template.accepted_kwargs(body.switches),
        add_generation_prompt=body.generation_prompt,
        continue_final_message=body.continue_final_message,
    )
    told = _prompt_with_tools(model, body, how, tooling) if tooling.functions else None
    half = model.facts.context_length // 2
    if told and len(told.ids) <= half:
        return ChatPrompt(told, True)
    plain = _prompt(model, body, how)
    if told and len(told.ids) < model.facts.context_length and len(told.ids) - len(plain.ids) <= half:
        return ChatPrompt(told, True)
    if tooling.functions:
        log.info("request.tools_omitted", tools=len(tooling.functions), tokens=told and len(told.ids))
    return ChatPrompt(plain, not tooling.functions)


def _prompt_with_tools(
    model: LoadedModel, body: ChatRequest, rendering: RenderOptions, tooling: ToolConfig
) -> Prompt | None:
    """None where it cannot be said, or not in so little room."""
    try:
        if model.chat_template.capabilities.tools:
            return _prompt(model, body, replace(rendering, tools=tooling.functions))
        return _prompt(model, body, rendering, [_functions_message(tooling.functions)]) if tooling.is_forced else None
    except InvalidRequest:
        return None


def _prompt(
    model: LoadedModel, body: ChatRequest, rendering: RenderOptions, leading: Sequence[PromptMessage] = ()
) -> Prompt:
    """Calls in the history as the template writes them; where it refuses these, as text."""
    context = model.facts.context_length
    if model.chat_template.capabilities.calls:
        try:
            return model.chat_template.render_prompt(
                [*leading, *template_messages(body.messages, native=True)], rendering, context_length=context
            )
        except ContextLengthExceeded:
            raise
        except InvalidRequest:
            log.debug("request.history_as_text")
    return model.chat_template.render_prompt(
        [*leading, *template_messages(body.messages, native=False)], rendering, context_length=context
    )


def _functions_message(functions: Sequence[Function]) -> PromptMessage:
    lines = [msgspec.json.encode(function.as_tool()["function"]).decode() for function in functions]
    return PromptMessage("system", "\n".join([FORCED_CALL_INSTRUCTION, *lines]))
