"""Prepares a chat: renders messages and tools into a prompt, and chooses the grammar that constrains the answer."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import structlog

from millm.errors import ContextLengthExceeded, InvalidRequest
from millm.generation.request import GenerationRequest, build_request, parser_config_of, resolve_selection
from millm.generation.tools import ToolConfig
from millm.lifecycle.restore import ensure_loaded
from millm.loaded import LoadedModel
from millm.protocol.request import CalledFunction, ChatMessage, ChatRequest, ResponseFormat
from millm.state import State
from millm.text.chat_template import Prompt, PromptMessage, PromptToolCall, RenderOptions, content_text
from millm.text.json_schema import arguments_grammar, call_grammar, object_grammar, schema_grammar

log = structlog.get_logger()
FORCED_CALL_INSTRUCTION = "Answer by calling a function; write its arguments as JSON."


async def prepare_chat(
    state: State,
    body: ChatRequest,
    tooling: ToolConfig,
    header_profile: str | None,
    *,
    prefix: str,
    format_name: str = "response_format",
) -> GenerationRequest:
    """`format_name`: the request's name for `response_format`, used in errors."""
    template_messages(body.messages, native=False)  # rejects content that is not text before loading a model
    grammar = await asyncio.to_thread(answer_grammar, body.response_format, tooling, format_name)
    await ensure_loaded(state, body.model)
    selection = resolve_selection(state, body, header_profile)
    model = selection.model
    prompt, includes_tools = await asyncio.to_thread(render_prompt, model, body, tooling)
    return build_request(
        state,
        selection,
        body,
        [prompt.ids],
        prefix=prefix,
        stop=(*body.stop, *model.chat_template.stop_strings),
        continues_prompt=body.continue_final_message,
        grammar=grammar,
        parser_config=parser_config_of(model, tooling, prompt.text, is_constrained=grammar is not None),
        tools_omitted=not includes_tools,
        last_prompt_text=content_text(body.messages[-1].content),
    )


def answer_grammar(format: ResponseFormat, tooling: ToolConfig, name: str = "response_format") -> str | None:
    """The grammar of the answer: a forced call's, else that of `response_format`, with or without `strict`.

    Raises InvalidRequest, naming the field `name`, for an unsupported schema. Needs up to 0.1 s.
    """
    if tooling.choice == "named":
        return arguments_grammar(tooling.functions[0])
    if tooling.choice == "required":
        return call_grammar(tooling.functions, parallel=tooling.parallel_calls)
    if format.json_schema:
        return schema_grammar(format.json_schema.schema_, name)
    return object_grammar() if format.type == "json_object" else None


# ----------------------------------------------------------------------------------------------------------- prompt


def render_prompt(model: LoadedModel, body: ChatRequest, tooling: ToolConfig) -> tuple[Prompt, bool]:
    """Return the prompt, and whether it includes the tools.

    Tools are omitted where the template does not support them or where they would take more than half of the context.
    A forced call is described in words where the template does not support tools. Raises InvalidRequest or
    ContextLengthExceeded for a conversation that does not render or fit without tools.
    """
    options = RenderOptions(
        template_kwargs=model.chat_template.accepted_kwargs(body.switches),
        add_generation_prompt=body.generation_prompt,
        continue_final_message=body.continue_final_message,
    )
    with_tools = _prompt_with_tools(model, body, options, tooling) if tooling.functions else None
    half = model.facts.context_length // 2
    if with_tools and len(with_tools.ids) <= half:
        return with_tools, True
    plain = _prompt(model, body, options)
    if with_tools and len(with_tools.ids) < model.facts.context_length and len(with_tools.ids) - len(plain.ids) <= half:
        return with_tools, True
    if tooling.functions:
        log.info("request.tools_omitted", tools=len(tooling.functions), tokens=with_tools and len(with_tools.ids))
    return plain, not tooling.functions


def _prompt_with_tools(
    model: LoadedModel, body: ChatRequest, options: RenderOptions, tooling: ToolConfig
) -> Prompt | None:
    """None where the template does not support tools, or where the prompt does not fit."""
    try:
        if model.chat_template.capabilities.tools:
            return _prompt(model, body, replace(options, tools=tooling.functions))
        if not tooling.is_forced:
            return None
        definitions = [msgspec.json.encode(function.as_tool()["function"]).decode() for function in tooling.functions]
        instruction = PromptMessage("system", "\n".join([FORCED_CALL_INSTRUCTION, *definitions]))
        return _prompt(model, body, options, [instruction])
    except InvalidRequest:
        return None


def _prompt(
    model: LoadedModel, body: ChatRequest, options: RenderOptions, leading: Sequence[PromptMessage] = ()
) -> Prompt:
    """Renders earlier tool calls natively, or as text where the template rejects them."""

    def render(*, native: bool) -> Prompt:
        messages = [*leading, *template_messages(body.messages, native=native)]
        return model.chat_template.render_prompt(messages, options, context_length=model.facts.context_length)

    if model.chat_template.capabilities.calls:
        try:
            return render(native=True)
        except ContextLengthExceeded:
            raise
        except InvalidRequest:
            log.debug("request.history_as_text")
    return render(native=False)


# --------------------------------------------------------------------------------------------------------- messages


def template_messages(messages: Sequence[ChatMessage], *, native: bool) -> list[PromptMessage]:
    """`native`: for a template that supports tool calls; otherwise calls and results become plain text.

    Raises InvalidRequest, naming the message, for content that is missing or not text.
    """
    convert = _native_message if native else _plain_message
    return [convert(message, _message_text(index, message)) for index, message in enumerate(messages)]


def _message_text(index: int, message: ChatMessage) -> str:
    if message.content is None and message.role not in ("assistant", "tool", "function"):
        raise InvalidRequest(f"`messages.{index}.content` is required.", param=f"messages.{index}.content")
    return content_text(message.content)


def _native_message(message: ChatMessage, text: str) -> PromptMessage:
    if message.role in ("tool", "function"):
        return PromptMessage("tool", text, message.name, tool_call_id=message.tool_call_id or "")
    ids = [call.id for call in message.tool_calls] or [None]
    calls = tuple(
        PromptToolCall(call.name, _parsed_arguments(call.arguments), id)
        for id, call in zip(ids, _called_functions(message), strict=False)
    )
    return PromptMessage(message.role, text, message.name, calls=calls)


def _plain_message(message: ChatMessage, text: str) -> PromptMessage:
    if message.role in ("tool", "function"):
        return PromptMessage("user", f"Tool result: {text}")
    calls = [
        msgspec.json.encode({"name": call.name, "arguments": call.arguments}).decode()
        for call in _called_functions(message)
    ]
    return PromptMessage(message.role, "\n".join(filter(None, [text, *calls])), message.name)


def _called_functions(message: ChatMessage) -> list[CalledFunction]:
    """Calls of an assistant message; `function_call` is the older form."""
    if message.role != "assistant":
        return []
    older = [message.function_call] if message.function_call else []
    return [call.function for call in message.tool_calls] or older


def _parsed_arguments(arguments: object) -> object:
    """Templates expect an object; invalid JSON stays text."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments
