"""A chat's prompt: its history and its tools as the model's template takes them, as far as they fit.

The grammar that a chat's answer is held to, if any: a forced call's, or that of `response_format`.

A chat's messages as turns: tool calls and their results as such, or as plain text that any template can tell.

A chat as a job: its prompt, what its answer is held to and how it is read. Knows nothing of how it is told.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import structlog

from millm.errors import ContextLengthExceeded, InvalidRequest
from millm.generation.request import GenerationRequest, build_request, parser_config_of, resolve_selection
from millm.generation.tools import ToolConfig
from millm.lifecycle.restore import ensure_loaded
from millm.loaded import LoadedModel
from millm.protocol.request import CalledFunction, ChatMessage, ChatRequest, ResponseFormat
from millm.state import State
from millm.text.chat_template import Function, Prompt, PromptMessage, PromptToolCall, RenderOptions, content_text
from millm.text.json_schema import arguments_grammar, call_grammar, object_grammar, schema_grammar


def answer_grammar(format: ResponseFormat, tooling: ToolConfig, name: str = "response_format") -> str | None:
    """A forced call goes before the format, which is for answers in words. `strict` makes no difference: what is
    asked is held to. Raises InvalidRequest for a schema that cannot be, under the `name` that the format has in the
    request. Takes milliseconds, up to a tenth of a second.
    """
    if tooling.choice == "named":
        return arguments_grammar(tooling.functions[0])
    if tooling.choice == "required":
        return call_grammar(tooling.functions, parallel=tooling.parallel_calls)
    if format.json_schema:
        return schema_grammar(format.json_schema.schema_, name)
    return object_grammar() if format.type == "json_object" else None


def template_messages(messages: Sequence[ChatMessage], *, native: bool) -> list[PromptMessage]:
    """`native`: for a template that takes calls and results. Raises InvalidRequest, naming the message, where one says
    nothing, or something that is not text.
    """
    spell = _native_message if native else _plain_message
    return [spell(message, _message_text(place, message)) for place, message in enumerate(messages)]


def _message_text(index: int, message: ChatMessage) -> str:
    if message.content is None and message.role not in ("assistant", "tool", "function"):
        raise InvalidRequest(f"`messages.{index}.content` is required.", param=f"messages.{index}.content")
    return content_text(message.content)


def _native_message(message: ChatMessage, text: str) -> PromptMessage:
    if message.role in ("tool", "function"):
        return PromptMessage("tool", text, message.name, tool_call_id=message.tool_call_id or "")
    return PromptMessage(message.role, text, message.name, calls=_calls(message))


def _plain_message(message: ChatMessage, text: str) -> PromptMessage:
    if message.role in ("tool", "function"):
        return PromptMessage("user", f"Tool result: {text}")
    spelled = [_call_as_text(call.name, call.arguments) for call in _called_functions(message)]
    return PromptMessage(message.role, "\n".join(filter(None, [text, *spelled])), message.name)


def _calls(message: ChatMessage) -> tuple[PromptToolCall, ...]:
    ids = [call.id for call in message.tool_calls] or [None]
    called = zip(ids, _called_functions(message), strict=False)
    return tuple(PromptToolCall(call.name, _parsed_arguments(call.arguments), id) for id, call in called)


def _called_functions(message: ChatMessage) -> list[CalledFunction]:
    """Only an assistant calls; `function_call` is the older form."""
    if message.role != "assistant":
        return []
    older = [message.function_call] if message.function_call else []
    return [call.function for call in message.tool_calls] or older


def _parsed_arguments(arguments: object) -> object:
    """Templates expect an object; what is none stays as the model wrote it."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def _call_as_text(name: str, arguments: object) -> str:
    return msgspec.json.encode({"name": name, "arguments": arguments}).decode()


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


async def prepare_chat(
    state: State,
    body: ChatRequest,
    tooling: ToolConfig,
    header_profile: str | None,
    *,
    prefix: str,
    format_name: str = "response_format",
) -> GenerationRequest:
    """`format_name`: what `response_format` is called where it was asked for. Raises what the steps of it raise."""
    template_messages(body.messages, native=False)  # refuses what is no text before anything is decided
    grammar = await asyncio.to_thread(answer_grammar, body.response_format, tooling, format_name)
    await ensure_loaded(state, body.model)
    selection = resolve_selection(state, body, header_profile)
    model = selection.model
    written = await asyncio.to_thread(render_prompt, model, body, tooling)
    return build_request(
        state,
        selection,
        body,
        [written.prompt.ids],
        prefix=prefix,
        stop=(*body.stop, *model.chat_template.stop_strings),
        continues_prompt=body.continue_final_message,
        grammar=grammar,
        parser_config=parser_config_of(model, tooling, written.prompt.text, is_constrained=grammar is not None),
        tools_omitted=not written.includes_tools,
        last_prompt_text=content_text(body.messages[-1].content),
    )
