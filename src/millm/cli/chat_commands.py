"""What `/something` does in a chat: a new conversation and a line to show, or a refusal that changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from millm.cli.conversation import Conversation
from millm.cli.knobs import merge_features, parse_features
from millm.cli.remote import RemoteServer
from millm.errors import InvalidRequest, ProfileNotFound

CommandResult = tuple[Conversation, str]


@dataclass(frozen=True)
class ChatCommand:
    usage: str
    summary: str
    run: Callable[[Conversation, str, RemoteServer], CommandResult]


def run_command(line: str, conversation: Conversation, remote: RemoteServer) -> CommandResult:
    """Raises MillmError when the command is unknown or asks for what cannot be."""
    name, _, rest = line.partition(" ")
    if name not in CHAT_COMMANDS:
        raise InvalidRequest(f"there is no command {name}; /help lists them")
    return CHAT_COMMANDS[name].run(conversation, rest.strip(), remote)


def steer_with_profile(conversation: Conversation, name: str, remote: RemoteServer) -> Conversation:
    """Raises ProfileNotFound, naming those there are."""
    known = [entry.millm.profile for entry in remote.served_models() if entry.millm.profile]
    if name not in known:
        raise ProfileNotFound(f"no profile {name!r} fits what is attached; there are: {', '.join(known) or 'none'}")
    return replace(conversation, steering=name)


def _run_steer(conversation: Conversation, rest: str, _: RemoteServer) -> CommandResult:
    current = conversation.steering if isinstance(conversation.steering, tuple) else ()
    steered = replace(conversation, steering=merge_features(current, parse_features(rest))) if rest else conversation
    return steered, f"steering: {steered.steering_text}"


def _run_profile(conversation: Conversation, name: str, remote: RemoteServer) -> CommandResult:
    if name:
        steered = steer_with_profile(conversation, name, remote)
        return steered, f"steering: {steered.steering_text}"
    menu = [entry.millm for entry in remote.served_models() if entry.millm.profile]
    lines = [
        f"{'*' if item.profile == conversation.steering else ' '} {item.profile}: {item.description}" for item in menu
    ]
    return conversation, "\n".join(lines) or "there are no profiles here"


def _run_off(conversation: Conversation, _: str, __: RemoteServer) -> CommandResult:
    off = replace(conversation, steering=())
    return off, f"steering: {off.steering_text}"


def _run_reset(conversation: Conversation, _: str, __: RemoteServer) -> CommandResult:
    return replace(conversation, turns=()), "a new conversation; the steering stays"


def _run_help(conversation: Conversation, _: str, __: RemoteServer) -> CommandResult:
    lines = [f"{command.usage:<28}{command.summary}" for command in CHAT_COMMANDS.values()]
    return conversation, "\n".join([*lines, f"{'/quit':<28}leave (or Ctrl+D); Ctrl+C stops an answer"])


CHAT_COMMANDS = {
    "/steer": ChatCommand(
        "/steer 11 80 [mode] [unit]", "push features: /steer 11 80 12 -40, /steer 11 0.5 norm", _run_steer
    ),
    "/profile": ChatCommand("/profile [NAME]", "steer with a profile; alone, list them", _run_profile),
    "/off": ChatCommand("/off", "the base model, whatever the server steers with", _run_off),
    "/reset": ChatCommand("/reset", "forget what was said", _run_reset),
    "/help": ChatCommand("/help", "this list", _run_help),
}
