"""What `/something` does in a chat: a new conversation and a line to show, or a refusal that changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from millm.cli.conversation import Conversation
from millm.cli.knobs import merge, parse
from millm.cli.remote import Remote
from millm.errors import InvalidRequest, ProfileNotFound

Outcome = tuple[Conversation, str]


@dataclass(frozen=True)
class Command:
    usage: str
    summary: str
    do: Callable[[Conversation, str, Remote], Outcome]


def obey(line: str, conversation: Conversation, remote: Remote) -> Outcome:
    """Raises MillmError when the command is unknown or asks for what cannot be."""
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        raise InvalidRequest(f"there is no command {name}; /help lists them")
    return COMMANDS[name].do(conversation, rest.strip(), remote)


def with_profile(conversation: Conversation, name: str, remote: Remote) -> Conversation:
    """Raises ProfileNotFound, naming those there are."""
    known = [entry.millm.profile for entry in remote.entries() if entry.millm.profile]
    if name not in known:
        raise ProfileNotFound(f"no profile {name!r} fits what is attached; there are: {', '.join(known) or 'none'}")
    return replace(conversation, steering=name)


def _steer(conversation: Conversation, rest: str, _: Remote) -> Outcome:
    current = conversation.steering if isinstance(conversation.steering, tuple) else ()
    steered = replace(conversation, steering=merge(current, parse(rest))) if rest else conversation
    return steered, f"steering: {steered.described}"


def _profile(conversation: Conversation, name: str, remote: Remote) -> Outcome:
    if name:
        steered = with_profile(conversation, name, remote)
        return steered, f"steering: {steered.described}"
    menu = [entry.millm for entry in remote.entries() if entry.millm.profile]
    lines = [
        f"{'*' if item.profile == conversation.steering else ' '} {item.profile}: {item.description}" for item in menu
    ]
    return conversation, "\n".join(lines) or "there are no profiles here"


def _off(conversation: Conversation, _: str, __: Remote) -> Outcome:
    off = replace(conversation, steering=())
    return off, f"steering: {off.described}"


def _reset(conversation: Conversation, _: str, __: Remote) -> Outcome:
    return replace(conversation, said=()), "a new conversation; the steering stays"


def _help(conversation: Conversation, _: str, __: Remote) -> Outcome:
    lines = [f"{command.usage:<28}{command.summary}" for command in COMMANDS.values()]
    return conversation, "\n".join([*lines, f"{'/quit':<28}leave (or Ctrl+D); Ctrl+C stops an answer"])


COMMANDS = {
    "/steer": Command("/steer 11 80 [mode] [unit]", "push features: /steer 11 80 12 -40, /steer 11 0.5 norm", _steer),
    "/profile": Command("/profile [NAME]", "steer with a profile; alone, list them", _profile),
    "/off": Command("/off", "the base model, whatever the server steers with", _off),
    "/reset": Command("/reset", "forget what was said", _reset),
    "/help": Command("/help", "this list", _help),
}
