"""Turns → what a chat template makes of them, and what it accepts at all; knows nothing about folders or ids."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millm.errors import InvalidRequest
from millm.text.functions import Function
from millm.text.roles import PromptMessage, PromptToolCall, TemplateCapabilities
from millm.text.sandbox import TemplateProgram
from millm.text.tokenizer import Tokenizer

_CONTINUE_MARK = "\U000f0002"
"""Marks where a message ends that is to be continued."""


@dataclass(frozen=True)
class RenderOptions:
    """How a conversation is to be written down."""

    tools: tuple[Function, ...] = ()
    """For templates that accept them."""
    template_kwargs: Mapping[str, bool | int | str] = field(default_factory=dict)
    """The template's own variables, such as `enable_thinking`."""
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    """Ends within the last message, whose text the answer goes on with."""


DEFAULT_RENDER_OPTIONS = RenderOptions()


def probe_capabilities(program: TemplateProgram, tokenizer: Tokenizer) -> TemplateCapabilities:
    """Asks the template itself, once: what it raises on, or leaves out of its text, it does not accept."""
    user, answer, last = (
        PromptMessage("user", "probe 1"),
        PromptMessage("assistant", "probe 2"),
        PromptMessage("user", "probe 4"),
    )
    calling = PromptMessage("assistant", "", calls=(PromptToolCall("probe_5", {"probe_6": "probe 7"}, "probecall"),))
    result = PromptMessage("tool", "probe 8", name="probe_5", tool_call_id="probecall")
    tries = functools.partial(_renders_all, program, tokenizer)
    return TemplateCapabilities(
        leading_system=tries(PromptMessage("system", "probe 0"), user),
        later_roles=frozenset(
            role for role in ("system", "tool") if tries(user, answer, PromptMessage(role, "probe 3"), last)
        ),
        repeated_roles=tries(user, last),
        tools=tries(user, how=RenderOptions((Function("probe_9", "probe 10"),)), words=("probe_9", "probe 10")),
        calls=tries(user, calling, result, words=("probe_5", "probe_6", "probe 7")),
    )


def _renders_all(
    program: TemplateProgram,
    tokenizer: Tokenizer,
    *turns: PromptMessage,
    how: RenderOptions = DEFAULT_RENDER_OPTIONS,
    words: Sequence[str] = (),
) -> bool:
    try:
        text = render_messages(program, tokenizer, turns, how)
    except InvalidRequest:
        return False
    return all(word in text for word in (*words, *(turn.content for turn in turns)))


def render_messages(
    program: TemplateProgram,
    tokenizer: Tokenizer,
    messages: Sequence[PromptMessage],
    options: RenderOptions,
    mark: Callable[[object], Any] = lambda value: value,
) -> str:
    told = [_message_to_dict(turn) for turn in messages]
    if options.continue_final_message:
        told[-1]["content"] += f"{_CONTINUE_MARK} "
    text = program.run(
        **options.template_kwargs,
        **tokenizer.token_names,
        messages=told,
        tools=[mark(tool.as_tool()) for tool in options.tools] or None,
        documents=None,
        add_generation_prompt=options.add_generation_prompt,
    )
    return _cut_at_continue_mark(text) if options.continue_final_message else text


def _cut_at_continue_mark(text: str) -> str:
    """Without what the template writes behind the last message; without its last spaces, where the template drops
    those of every message (as transformers does, `render_jinja_template`).
    """
    before, found, after = text.rpartition(_CONTINUE_MARK)
    if not found:
        raise InvalidRequest(
            "`continue_final_message` does not work with this model: its template leaves the last message out.",
            param="continue_final_message",
        )
    return before if after.startswith(" ") else before.rstrip()


def _message_to_dict(message: PromptMessage) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        told["name"] = message.name
    if message.calls:
        told["tool_calls"] = [_call_to_dict(call) for call in message.calls]
    if message.tool_call_id is not None:
        told["tool_call_id"] = message.tool_call_id
    return told


def _call_to_dict(call: PromptToolCall) -> dict[str, Any]:
    told = {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return told if call.id is None else {"id": call.id, **told}
