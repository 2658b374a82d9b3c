"""Messages → the prompt a model was trained on, as text or token ids, through the model's own chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec

from millm.errors import InvalidModel
from millm.text.folder import read_json
from millm.text.rendering import DEFAULT_RENDER_OPTIONS, RenderOptions, probe_capabilities, render_messages
from millm.text.roles import PromptMessage, PromptToolCall, TemplateCapabilities, fit_roles
from millm.text.sandbox import MAX_TEMPLATE_CHARACTERS, TemplateProgram
from millm.text.tokenizer import Tokenizer

__all__ = ["DEFAULT_RENDER_OPTIONS", "PromptToolCall", "ChatTemplate", "PromptMessage", "RenderOptions", "fit_roles"]

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
