"""Makes a conversation fit the roles that a model's template accepts; knows nothing about templates or ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from millm.errors import InvalidRequest

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CALLED = {"developer": "system", "function": "tool"}


@dataclass(frozen=True)
class Call:
    """A tool call that an assistant made earlier."""

    name: str
    arguments: Any
    """An object, or whatever the model wrote instead."""
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    name: str | None = None
    calls: tuple[Call, ...] = ()
    answers: str | None = None
    """The id of the call whose result this is."""

    @property
    def is_of_a_call(self) -> bool:
        """It makes one, or brings the result of one, so that it must stay by itself."""
        return bool(self.calls) or self.answers is not None


@dataclass(frozen=True)
class Accepted:
    """What a template renders without raising or dropping it; user and assistant turns always count as such."""

    opening_system: bool
    """A system message before everything else."""
    later: frozenset[str]
    """Which of `system` and `tool` it takes after the first turn."""
    neighbours: bool
    """Two turns of one role in a row."""
    tools: bool = False
    """Functions that may be called."""
    calls: bool = False
    """Calls in an assistant's turn, and their results after it."""

    def takes(self, role: str, after: Sequence[Message]) -> bool:
        if role == "system" and all(turn.role == "system" for turn in after):
            return self.opening_system
        return role in ("user", "assistant") or role in self.later

    def keeps_apart(self, role: str) -> bool:
        """True when a second turn of this role in a row may stand on its own."""
        return self.neighbours and (role != "system" or "system" in self.later)


def fit_roles(messages: Sequence[Message], accepted: Accepted) -> list[Message]:
    """The same words in turns that the template takes.

    A refused system or tool message becomes a user turn where it stands, joined with the user turn after it.
    Neighbours of one role are joined where the template refuses them; what is joined is an empty line apart.
    Raises InvalidRequest for no messages or an unknown role.
    """
    if not messages:
        raise InvalidRequest("messages is empty; send at least one message", param="messages")
    fitted: list[Message] = []
    last_was_refused = False
    for message in messages:
        role = _role_of(message)
        refused = not accepted.takes(role, fitted)
        turn = replace(message, role="user" if refused else role)
        alike = bool(fitted) and fitted[-1].role == turn.role and not (fitted[-1].is_of_a_call or turn.is_of_a_call)
        if alike and (last_was_refused or not accepted.keeps_apart(turn.role)):
            fitted[-1] = _joined(fitted[-1], turn)
        else:
            fitted.append(turn)
        last_was_refused = refused
    return fitted


def _role_of(message: Message) -> str:
    if message.role not in ROLES:
        raise InvalidRequest(
            f"messages: role {message.role[:40]!r} is unknown; use one of {', '.join(ROLES)}",
            param="messages",
        )
    return _CALLED.get(message.role, message.role)


def _joined(first: Message, second: Message) -> Message:
    name = first.name if first.name == second.name else None
    return Message(first.role, f"{first.content}\n\n{second.content}", name)
