"""Messages → the prompt a model was trained on, as text or token ids, through the model's own chat template."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec

from millm.errors import InvalidModel, InvalidRequest
from millm.text.folder import read_json
from millm.text.roles import Accepted, Message, fit_roles
from millm.text.sandbox import MAX_TEMPLATE_CHARACTERS, TemplateProgram
from millm.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "Message", "fit_roles"]

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


@dataclass(frozen=True)
class ChatTemplate:
    """One model's chat template."""

    uses_default: bool
    """True when the model has no template of its own."""
    accepted: Accepted
    _program: TemplateProgram
    _tokenizer: Tokenizer

    @classmethod
    def from_folder(cls, folder: Path, tokenizer: Tokenizer) -> Self:
        """Raises InvalidModel when the folder has a template that cannot be used."""
        source = _source(folder)
        program = TemplateProgram(FALLBACK_TEMPLATE if source is None else source)
        return cls(
            uses_default=source is None,
            accepted=_accepted_by(program, tokenizer),
            _program=program,
            _tokenizer=tokenizer,
        )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """What ends an answer besides the model's own end-of-turn token."""
        return FALLBACK_STOP_STRINGS if self.uses_default else ()

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt as text. Raises InvalidRequest when the template refuses the conversation."""
        turns = fit_roles(messages, self.accepted)
        return _rendered(self._program, self._tokenizer, turns, add_generation_prompt)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt as token ids, with the start of the answer. What people wrote stays text: a control token
        in a message cannot end its turn.
        """
        turns = [self._marked(turn) for turn in fit_roles(messages, self.accepted)]
        return self._tokenizer.encode_prompt(_rendered(self._program, self._tokenizer, turns))

    def _marked(self, turn: Message) -> Message:
        mark = self._tokenizer.control.mark
        return replace(turn, content=mark(turn.content), name=turn.name and mark(turn.name))


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


def _source(folder: Path) -> str | None:
    """The model's own template: chat_template.jinja, or else what tokenizer_config.json says; None without one."""
    file = folder / "chat_template.jinja"
    if not file.is_file():
        return _configured_source(read_json(folder, "tokenizer_config.json").get("chat_template"))
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.read(MAX_TEMPLATE_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise InvalidModel("the model's chat_template.jinja is not text; download that file again") from error


def _configured_source(value: object) -> str | None:
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


def _accepted_by(program: TemplateProgram, tokenizer: Tokenizer) -> Accepted:
    """Asks the template itself, once: what it raises on, or leaves out of its text, it does not accept."""
    user, answer, last = Message("user", "probe 1"), Message("assistant", "probe 2"), Message("user", "probe 4")
    tries = functools.partial(_shows_all, program, tokenizer)
    return Accepted(
        opening_system=tries(Message("system", "probe 0"), user),
        later=frozenset(role for role in ("system", "tool") if tries(user, answer, Message(role, "probe 3"), last)),
        neighbours=tries(user, last),
    )


def _shows_all(program: TemplateProgram, tokenizer: Tokenizer, *turns: Message) -> bool:
    try:
        text = _rendered(program, tokenizer, turns)
    except InvalidRequest:
        return False
    return all(turn.content in text for turn in turns)


def _rendered(
    program: TemplateProgram,
    tokenizer: Tokenizer,
    turns: Sequence[Message],
    add_generation_prompt: bool = True,
) -> str:
    return program.run(
        **tokenizer.token_names,
        messages=[_as_template_sees(turn) for turn in turns],
        tools=None,
        documents=None,
        add_generation_prompt=add_generation_prompt,
    )


def _as_template_sees(turn: Message) -> dict[str, str]:
    seen = {"role": turn.role, "content": turn.content}
    return seen if turn.name is None else seen | {"name": turn.name}
