"""Render a conversation as the prompt a model was trained on, as text or token ids, with its own chat template."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import msgspec

from millm.errors import InvalidModel, InvalidRequest, UnsupportedParameter
from millm.text.jinja_sandbox import MAX_TEMPLATE_CHARACTERS, TemplateProgram
from millm.text.model_folder import read_json
from millm.text.tokenizer import Tokenizer

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_ROLE_ALIASES = {"developer": "system", "function": "tool"}
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
"""For base models, which have no template: a transcript they are likely to continue."""
FALLBACK_STOP_STRINGS = ("\nUser:",)  # without these a base model also writes the next user turn
RESERVED_VARIABLES = frozenset({"messages", "tools", "documents", "add_generation_prompt", "tokenize", "chat_template"})
"""Template variables that a client cannot set."""
MAX_KWARG_CHARACTERS = 256
_CONTINUE_MARK = "\U000f0002"  # written at the end of a message that is to be continued
_TEXT_FIELD_BY_TYPE = {"text": "text", "refusal": "refusal"}


def content_text(content: str | Sequence[Mapping[str, object]] | None) -> str:
    """The text parts, joined. Raises UnsupportedParameter for images, audio and files."""
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
    """JSON schema of the arguments; {} for a function without any."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments; its type is always object."""
        if not self.parameters:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {**self.parameters, "type": "object"}

    def as_tool(self) -> dict[str, Any]:
        """An entry of `tools`, as chat templates expect it."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class PromptToolCall:
    """A tool call in an earlier assistant turn."""

    name: str
    arguments: Any  # an object, or the text that the model wrote instead
    id: str | None = None


@dataclass(frozen=True)
class PromptMessage:
    """One turn of a conversation."""

    role: str
    content: str
    name: str | None = None
    calls: tuple[PromptToolCall, ...] = ()
    tool_call_id: str | None = None  # the id of the call whose result this is

    @property
    def is_call_or_result(self) -> bool:
        """Such a turn is never joined with a neighbour."""
        return bool(self.calls) or self.tool_call_id is not None


@dataclass(frozen=True)
class TemplateCapabilities:
    """What a template renders in full, without raising; user and assistant turns always count as such."""

    leading_system: bool  # a system message before everything else
    later_roles: frozenset[str]  # which of `system` and `tool` are accepted after the first turn
    repeated_roles: bool  # two turns of one role in a row
    tools: bool = False  # function definitions
    calls: bool = False  # calls in an assistant turn, and their results after it

    def accepts_role(self, role: str, previous: Sequence[PromptMessage]) -> bool:
        if role == "system" and all(turn.role == "system" for turn in previous):
            return self.leading_system
        return role in ("user", "assistant") or role in self.later_roles

    def allows_repeated(self, role: str) -> bool:
        """Whether two turns of this role may follow each other."""
        return self.repeated_roles and (role != "system" or "system" in self.later_roles)


@dataclass(frozen=True)
class RenderOptions:
    """How to render a conversation."""

    tools: tuple[Function, ...] = ()  # ignored by templates that do not support tools
    template_kwargs: Mapping[str, bool | int | str] = field(default_factory=dict)
    """The template's own variables, such as `enable_thinking`."""
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    """The prompt ends within the last message, which the answer continues."""


DEFAULT_RENDER_OPTIONS = RenderOptions()


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation."""

    text: str
    ids: list[int]


@dataclass(frozen=True)
class ChatTemplate:
    """One model's chat template."""

    uses_fallback: bool  # True when the model has no template of its own
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
        """Strings that end an answer, in addition to the model's own end-of-turn token."""
        return FALLBACK_STOP_STRINGS if self.uses_fallback else ()

    def accepted_kwargs(self, requested: Mapping[str, object]) -> dict[str, bool | int | str]:
        """The arguments that this template reads and a client may set; others have no effect."""
        readable = self._program.variables - RESERVED_VARIABLES - self._tokenizer.token_names.keys()
        return {
            name: value
            for name, value in requested.items()
            if name in readable and isinstance(value, bool | int | str) and len(str(value)) <= MAX_KWARG_CHARACTERS
        }

    def render(self, messages: Sequence[PromptMessage], options: RenderOptions = DEFAULT_RENDER_OPTIONS) -> str:
        """The prompt as text. Raises InvalidRequest when the template rejects the conversation."""
        return render_messages(self._program, self._tokenizer, fit_roles(messages, self.capabilities), options)

    def render_prompt(
        self,
        messages: Sequence[PromptMessage],
        options: RenderOptions = DEFAULT_RENDER_OPTIONS,
        *,
        context_length: int | None = None,
    ) -> Prompt:
        """The prompt as text and token ids. Client text stays text: a control token in a message, a tool or a
        template argument cannot end its turn.

        Raises ContextLengthExceeded, before tokenising, for a text that cannot fit `context_length` tokens.
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


def fit_roles(messages: Sequence[PromptMessage], capabilities: TemplateCapabilities) -> list[PromptMessage]:
    """The conversation in turns that the template accepts, with the same words.

    An unsupported system or tool message becomes a user turn in its place, joined with the user turn after it.
    Neighbours of one role are joined, an empty line apart, where the template rejects repeated roles.
    Raises InvalidRequest for no messages or an unknown role.
    """
    if not messages:
        raise InvalidRequest("messages is empty; send at least one message", param="messages")
    fitted: list[PromptMessage] = []
    last_was_refused = False
    for message in messages:
        if message.role not in ROLES:
            raise InvalidRequest(
                f"messages: role {message.role[:40]!r} is unknown; use one of {', '.join(ROLES)}", param="messages"
            )
        role = _ROLE_ALIASES.get(message.role, message.role)
        refused = not capabilities.accepts_role(role, fitted)
        turn = replace(message, role="user" if refused else role)
        can_merge = (
            bool(fitted)
            and fitted[-1].role == turn.role
            and not (fitted[-1].is_call_or_result or turn.is_call_or_result)
        )
        if can_merge and (last_was_refused or not capabilities.allows_repeated(turn.role)):
            name = turn.name if turn.name == fitted[-1].name else None
            fitted[-1] = PromptMessage(turn.role, f"{fitted[-1].content}\n\n{turn.content}", name)
        else:
            fitted.append(turn)
        last_was_refused = refused
    return fitted


def probe_capabilities(program: TemplateProgram, tokenizer: Tokenizer) -> TemplateCapabilities:
    """Find the capabilities by rendering probes: a template that raises, or drops a probe, does not support it."""
    user, answer = PromptMessage("user", "probe 1"), PromptMessage("assistant", "probe 2")
    last = PromptMessage("user", "probe 4")
    calling = PromptMessage("assistant", "", calls=(PromptToolCall("probe_5", {"probe_6": "probe 7"}, "probecall"),))
    result = PromptMessage("tool", "probe 8", name="probe_5", tool_call_id="probecall")
    renders = functools.partial(_renders_all, program, tokenizer)
    return TemplateCapabilities(
        leading_system=renders(PromptMessage("system", "probe 0"), user),
        later_roles=frozenset(
            role for role in ("system", "tool") if renders(user, answer, PromptMessage(role, "probe 3"), last)
        ),
        repeated_roles=renders(user, last),
        tools=renders(user, options=RenderOptions((Function("probe_9", "probe 10"),)), words=("probe_9", "probe 10")),
        calls=renders(user, calling, result, words=("probe_5", "probe_6", "probe 7")),
    )


def _renders_all(
    program: TemplateProgram,
    tokenizer: Tokenizer,
    *turns: PromptMessage,
    options: RenderOptions = DEFAULT_RENDER_OPTIONS,
    words: Sequence[str] = (),
) -> bool:
    try:
        text = render_messages(program, tokenizer, turns, options)
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
    turns = [_message_to_dict(turn) for turn in messages]
    if options.continue_final_message:
        turns[-1]["content"] += f"{_CONTINUE_MARK} "
    text = program.run(
        **options.template_kwargs,
        **tokenizer.token_names,
        messages=turns,
        tools=[mark(tool.as_tool()) for tool in options.tools] or None,
        documents=None,
        add_generation_prompt=options.add_generation_prompt,
    )
    return _cut_at_continue_mark(text) if options.continue_final_message else text


def _cut_at_continue_mark(text: str) -> str:
    """Drop the text that the template writes after the last message, and the message's trailing spaces where the
    template strips those of every message (as transformers' `render_jinja_template` does).
    """
    before, mark, after = text.rpartition(_CONTINUE_MARK)
    if not mark:
        raise InvalidRequest(
            "`continue_final_message` does not work with this model: its template leaves the last message out.",
            param="continue_final_message",
        )
    return before if after.startswith(" ") else before.rstrip()


def _message_to_dict(message: PromptMessage) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        turn["name"] = message.name
    if message.calls:
        turn["tool_calls"] = [
            ({} if call.id is None else {"id": call.id})
            | {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


def _read_template(folder: Path) -> str | None:
    """The template in chat_template.jinja, else the one in tokenizer_config.json, else None."""
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
