"""Turns → what a chat template makes of them, and what it accepts at all; knows nothing about folders or ids."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millm.errors import InvalidRequest
from millm.text.functions import Function
from millm.text.roles import Accepted, Call, Message
from millm.text.sandbox import TemplateProgram
from millm.text.tokenizer import Tokenizer

_HERE = "\U000f0002"
"""Marks where a message ends that is to be continued."""


@dataclass(frozen=True)
class Rendering:
    """How a conversation is to be written down."""

    tools: tuple[Function, ...] = ()
    """For templates that accept them."""
    switches: Mapping[str, bool | int | str] = field(default_factory=dict)
    """The template's own variables, such as `enable_thinking`."""
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    """Ends within the last message, whose text the answer goes on with."""


PLAIN = Rendering()


def accepted_by(program: TemplateProgram, tokenizer: Tokenizer) -> Accepted:
    """Asks the template itself, once: what it raises on, or leaves out of its text, it does not accept."""
    user, answer, last = Message("user", "probe 1"), Message("assistant", "probe 2"), Message("user", "probe 4")
    calling = Message("assistant", "", calls=(Call("probe_5", {"probe_6": "probe 7"}, "probecall"),))
    result = Message("tool", "probe 8", name="probe_5", answers="probecall")
    tries = functools.partial(_shows, program, tokenizer)
    return Accepted(
        opening_system=tries(Message("system", "probe 0"), user),
        later=frozenset(role for role in ("system", "tool") if tries(user, answer, Message(role, "probe 3"), last)),
        neighbours=tries(user, last),
        tools=tries(user, how=Rendering((Function("probe_9", "probe 10"),)), words=("probe_9", "probe 10")),
        calls=tries(user, calling, result, words=("probe_5", "probe_6", "probe 7")),
    )


def _shows(
    program: TemplateProgram,
    tokenizer: Tokenizer,
    *turns: Message,
    how: Rendering = PLAIN,
    words: Sequence[str] = (),
) -> bool:
    try:
        text = rendered(program, tokenizer, turns, how)
    except InvalidRequest:
        return False
    return all(word in text for word in (*words, *(turn.content for turn in turns)))


def rendered(
    program: TemplateProgram,
    tokenizer: Tokenizer,
    turns: Sequence[Message],
    how: Rendering,
    mark: Callable[[object], Any] = lambda value: value,
) -> str:
    told = [_as_template_sees(turn) for turn in turns]
    if how.continue_final_message:
        told[-1]["content"] += f"{_HERE} "
    text = program.run(
        **how.switches,
        **tokenizer.token_names,
        messages=told,
        tools=[mark(tool.as_tool()) for tool in how.tools] or None,
        documents=None,
        add_generation_prompt=how.add_generation_prompt,
    )
    return _up_to_the_end(text) if how.continue_final_message else text


def _up_to_the_end(text: str) -> str:
    """Without what the template writes behind the last message; without its last spaces, where the template drops
    those of every message (as transformers does, `render_jinja_template`).
    """
    before, found, after = text.rpartition(_HERE)
    if not found:
        raise InvalidRequest(
            "`continue_final_message` does not work with this model: its template leaves the last message out.",
            param="continue_final_message",
        )
    return before if after.startswith(" ") else before.rstrip()


def _as_template_sees(turn: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.name is not None:
        told["name"] = turn.name
    if turn.calls:
        told["tool_calls"] = [_as_template_sees_call(call) for call in turn.calls]
    if turn.answers is not None:
        told["tool_call_id"] = turn.answers
    return told


def _as_template_sees_call(call: Call) -> dict[str, Any]:
    told = {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return told if call.id is None else {"id": call.id, **told}
