"""Makes a conversation fit the roles that a model's template accepts; knows nothing about templates or ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from millm.errors import InvalidRequest

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
