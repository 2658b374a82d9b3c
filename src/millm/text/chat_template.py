"""Messages → the prompt a model was trained on, as text or token ids, through the model's own chat template.

The text of a message's content, which may come in parts; refuses by name what is not text.

A function that a model may call, as a client describes it; knows nothing about how calls are written.

Makes a conversation fit the roles that a model's template accepts; knows nothing about templates or ids.

Turns → what a chat template makes of them, and what it accepts at all; knows nothing about folders or ids.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import msgspec

from millm.errors import InvalidModel, InvalidRequest, UnsupportedParameter
from millm.text.jinja_sandbox import MAX_TEMPLATE_CHARACTERS, TemplateProgram
from millm.text.tokenizer import Tokenizer, read_json

_TEXT_FIELD_BY_TYPE = {"text": "text", "refusal": "refusal"}


def content_text(content: str | Sequence[Mapping[str, object]] | None) -> str:
    """Text parts joined as they are. Raises UnsupportedParameter for images, audio and files."""
    if content is None:
        return ""
    return content if isinstance(content, str) else "".join(map(_part_text, content))


def _part_text(part: Mapping[str, object]) -> str:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _TEXT_FIELD_BY_TYPE:
        raise UnsupportedParameter(
            f"messages: content of type {str(kind)[:40]!r} is not supported, this model reads text; "
            "send parts of type 'text'",
            param="messages",
        )
    text = part.get(_TEXT_FIELD_BY_TYPE[kind])
    if not isinstance(text, str):
        raise InvalidRequest(f"messages: a part of type {kind!r} needs a string {kind!r}", param="messages")
    return text


@dataclass(frozen=True)
class Function:
    """One function of `tools`."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """A JSON schema of its arguments; {}: it takes none."""

    @property
    def schema(self) -> dict[str, Any]:
        """What its arguments have to be: always an object."""
        if not self.parameters:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {**self.parameters, "type": "object"}

    def as_tool(self) -> dict[str, Any]:
        """As chat templates expect an entry of `tools`."""
        told = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": told}


ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_ROLE_ALIASES = {"developer": "system", "function": "tool"}


@dataclass(frozen=True)
class PromptToolCall:
    """A tool call that an assistant made earlier."""

    name: str
    arguments: Any
    """An object, or whatever the model wrote instead."""
    id: str | None = None


@dataclass(frozen=True)
class PromptMessage:
    """One turn of a conversation."""

    role: str
    content: str
    name: str | None = None
    calls: tuple[PromptToolCall, ...] = ()
    tool_call_id: str | None = None
    """The id of the call whose result this is."""

    @property
    def is_call_or_result(self) -> bool:
        """It makes one, or brings the result of one, so that it must stay by itself."""
        return bool(self.calls) or self.tool_call_id is not None


@dataclass(frozen=True)
class TemplateCapabilities:
    """What a template renders without raising or dropping it; user and assistant turns always count as such."""

    leading_system: bool
    """A system message before everything else."""
    later_roles: frozenset[str]
    """Which of `system` and `tool` it takes after the first turn."""
    repeated_roles: bool
    """Two turns of one role in a row."""
    tools: bool = False
    """Functions that may be called."""
    calls: bool = False
    """Calls in an assistant's turn, and their results after it."""

    def accepts_role(self, role: str, previous: Sequence[PromptMessage]) -> bool:
        if role == "system" and all(turn.role == "system" for turn in previous):
            return self.leading_system
        return role in ("user", "assistant") or role in self.later_roles

    def allows_repeated(self, role: str) -> bool:
        """True when a second turn of this role in a row may stand on its own."""
        return self.repeated_roles and (role != "system" or "system" in self.later_roles)


def fit_roles(messages: Sequence[PromptMessage], capabilities: TemplateCapabilities) -> list[PromptMessage]:
    """The same words in turns that the template takes.

    A refused system or tool message becomes a user turn where it stands, joined with the user turn after it.
    Neighbours of one role are joined where the template refuses them; what is joined is an empty line apart.
    Raises InvalidRequest for no messages or an unknown role.
    """
    if not messages:
        raise InvalidRequest("messages is empty; send at least one message", param="messages")
    fitted: list[PromptMessage] = []
    last_was_refused = False
    for message in messages:
        role = _template_role(message)
        refused = not capabilities.accepts_role(role, fitted)
        turn = replace(message, role="user" if refused else role)
        alike = (
            bool(fitted)
            and fitted[-1].role == turn.role
            and not (fitted[-1].is_call_or_result or turn.is_call_or_result)
        )
        if alike and (last_was_refused or not capabilities.allows_repeated(turn.role)):
            fitted[-1] = _merge_messages(fitted[-1], turn)
        else:
            fitted.append(turn)
        last_was_refused = refused
    return fitted


def _template_role(message: PromptMessage) -> str:
    if message.role not in ROLES:
        raise InvalidRequest(
            f"messages: role {message.role[:40]!r} is unknown; use one of {', '.join(ROLES)}",
            param="messages",
        )
    return _ROLE_ALIASES.get(message.role, message.role)


def _merge_messages(first: PromptMessage, second: PromptMessage) -> PromptMessage:
    name = first.name if first.name == second.name else None
    return PromptMessage(first.role, f"{first.content}\n\n{second.content}", name)


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


FALLBACK_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{ message.content + '\n\n' }}
{%- elif message.role == 'user' -%}
{{ 'User: ' + message.content + '\n' }}
{%- elif message.role == 'assistant' -%}
{{ 'Assistant: ' + message.content + '\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'Assistant:' }}
{%- endif -%}
"""
"""For base models, which have none: a transcript they are likely to go on with."""
FALLBACK_STOP_STRINGS = ("\nUser:",)
"""Without these a base model goes on to write the user's next turn as well."""
RESERVED_VARIABLES = frozenset({"messages", "tools", "documents", "add_generation_prompt", "tokenize", "chat_template"})
"""What a template reads that is not the client's to set."""
MAX_KWARG_CHARACTERS = 256


@dataclass(frozen=True)
class Prompt:
    """A conversation written down."""

    text: str
    ids: list[int]


@dataclass(frozen=True)
class ChatTemplate:
    """One model's chat template."""

    uses_fallback: bool
    """True when the model has no template of its own."""
    capabilities: TemplateCapabilities
    _program: TemplateProgram
    _tokenizer: Tokenizer

    @classmethod
    def from_folder(cls, folder: Path, tokenizer: Tokenizer) -> Self:
        """Raises InvalidModel when the folder has a template that cannot be used."""
        source = _read_template(folder)
        program = TemplateProgram(FALLBACK_TEMPLATE if source is None else source)
        return cls(
            uses_fallback=source is None,
            capabilities=probe_capabilities(program, tokenizer),
            _program=program,
            _tokenizer=tokenizer,
        )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """What ends an answer besides the model's own end-of-turn token."""
        return FALLBACK_STOP_STRINGS if self.uses_fallback else ()

    def accepted_kwargs(self, requested: Mapping[str, object]) -> dict[str, bool | int | str]:
        """Those that this template reads and a client may set; the others change nothing."""
        readable = self._program.variables - RESERVED_VARIABLES - self._tokenizer.token_names.keys()
        return {
            name: value
            for name, value in requested.items()
            if name in readable and isinstance(value, bool | int | str) and len(str(value)) <= MAX_KWARG_CHARACTERS
        }

    def render(self, messages: Sequence[PromptMessage], options: RenderOptions = DEFAULT_RENDER_OPTIONS) -> str:
        """The prompt as text. Raises InvalidRequest when the template refuses the conversation."""
        return render_messages(self._program, self._tokenizer, fit_roles(messages, self.capabilities), options)

    def render_prompt(
        self,
        messages: Sequence[PromptMessage],
        options: RenderOptions = DEFAULT_RENDER_OPTIONS,
        *,
        context_length: int | None = None,
    ) -> Prompt:
        """The prompt as token ids, with the start of the answer. What people wrote stays text: a control token
        in a message, a tool or a switch cannot end its turn.

        Raises ContextLengthExceeded, before it is tokenised, for a text that cannot be so few tokens.
        """
        mark = self._tokenizer.control_tokens.mark_all
        turns = [self._mark_message(turn) for turn in fit_roles(messages, self.capabilities)]
        text = render_messages(
            self._program,
            self._tokenizer,
            turns,
            replace(options, template_kwargs=mark(dict(options.template_kwargs))),
            mark,
        )
        if context_length is not None:
            self._tokenizer.check_length(text, context_length)
        return Prompt(text, self._tokenizer.encode_prompt(text))

    def _mark_message(self, message: PromptMessage) -> PromptMessage:
        mark = self._tokenizer.control_tokens.mark_all
        calls = tuple(replace(call, name=mark(call.name), arguments=mark(call.arguments)) for call in message.calls)
        return replace(message, content=mark(message.content), name=message.name and mark(message.name), calls=calls)


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


def _read_template(folder: Path) -> str | None:
    """The model's own template: chat_template.jinja, or else what tokenizer_config.json says; None without one."""
    file = folder / "chat_template.jinja"
    if not file.is_file():
        return _template_from_config(read_json(folder, "tokenizer_config.json").get("chat_template"))
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.read(MAX_TEMPLATE_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise InvalidModel("the model's chat_template.jinja is not text; download that file again") from error


def _template_from_config(value: object) -> str | None:
    try:
        template: str | list[_NamedTemplate] | None = msgspec.convert(value, str | list[_NamedTemplate] | None)
    except msgspec.ValidationError as error:
        raise InvalidModel("the model's chat_template in tokenizer_config.json is no template") from error
    if not isinstance(template, list):
        return template or None
    named = {choice.name: choice.template for choice in template}
    if "default" not in named:
        raise InvalidModel(f"the model's chat templates are {sorted(named)}; one must be named 'default'")
    return named["default"]
