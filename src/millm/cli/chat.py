"""`millm chat`: talk to a running server in the terminal, and steer the answers meanwhile."""

import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Annotated, Any, get_args

import msgspec
import typer
from rich.console import Console

from millm.cli.http_client import ChunkReceipt, RemoteServer, connect
from millm.cli.options import ApiKey, Url, given_options
from millm.cli.terminal import print_line, replace_control_chars
from millm.errors import InvalidRequest, InvalidSteering, MillmError, ProfileNotFound
from millm.sae.steering import FeatureSetting, Mode, Unit

with suppress(ImportError):  # not every Python is built with it
    import readline  # noqa: F401  arrow keys and history at the prompt

FeatureSettings = tuple[FeatureSetting, ...]
MODES: tuple[str, ...] = get_args(Mode)
UNITS: tuple[str, ...] = get_args(Unit)


@dataclass(frozen=True)
class Conversation:
    """The turns so far, and the steering of the next answer."""

    model: str
    sampling: dict[str, object]
    """Request fields such as `temperature`."""
    system: str | None = None
    steering: str | FeatureSettings | None = None
    """A profile's name; features, where () is the base model; None: the server's steering."""
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text), user and assistant in turn."""

    def request_body(self, prompt: str) -> dict[str, object]:
        system = [("system", self.system)] if self.system else []
        messages = [{"role": role, "content": text} for role, text in (*system, *self.turns, ("user", prompt))]
        return {"model": self.model, "messages": messages, **self.sampling, **_steering_fields(self.steering)}

    def with_turn(self, prompt: str, answer: str) -> "Conversation":
        return replace(self, turns=(*self.turns, ("user", prompt), ("assistant", answer)))

    @property
    def steering_text(self) -> str:
        match self.steering:
            case None:
                return "as the server has it"
            case str():
                return f"profile {self.steering}"
            case ():
                return "off: the base model"
            case features:
                return f"features {describe_features(features)}"


def _steering_fields(steering: str | FeatureSettings | None) -> dict[str, object]:
    match steering:
        case None:
            return {}
        case str():
            return {"profile": steering}
        case ():
            return {"steering": None}
        case features:
            return {"steering": {"features": msgspec.to_builtins(features)}}


def run(
    url: Url = None,
    api_key: ApiKey = None,
    model: Annotated[str | None, typer.Option(help="Which of its models (default: the one it has).")] = None,
    profile: Annotated[str | None, typer.Option(help="Steer with this profile from the start.")] = None,
    system: Annotated[str | None, typer.Option(help="Instructions that come before the conversation.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 for always the likeliest token, up to 2.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same answer.")] = None,
) -> None:
    """Chat in the terminal with a running server; steer with /steer 11 80.

    Example:

        millm chat --profile yelling --temperature 0.7

    Answers go to stdout, all else to stderr, and prompts may come through a pipe: echo "Hi" | millm chat
    """
    remote = connect(url, api_key)
    sampling = given_options(max_tokens=max_tokens, temperature=temperature, seed=seed)
    conversation = Conversation(remote.choose_model(model), sampling, system)
    if profile:
        conversation = steer_with_profile(conversation, profile, remote)
    Chat(remote, Console(emoji=False), Console(emoji=False, stderr=True)).talk(conversation)


class Chat:
    """Answers go to `out`; footnotes, errors and results of commands to `notes`."""

    def __init__(self, remote: RemoteServer, out: Console, notes: Console) -> None:
        self._remote = remote
        self._out = out
        self._notes = notes

    def talk(self, conversation: Conversation) -> None:
        """Returns when the prompts end, at `/quit`, or at Ctrl+C at the prompt."""
        if sys.stdin.isatty():
            self._print_note(
                f"{conversation.model} · steering: {conversation.steering_text} · /help lists the commands"
            )
        try:
            for line in read_prompts():
                if line == "/quit":
                    return
                conversation = self._handle_line(conversation, line)
        except KeyboardInterrupt:
            self._print_note("")

    def _handle_line(self, conversation: Conversation, line: str) -> Conversation:
        """An error is printed and leaves the conversation unchanged."""
        try:
            if not line.startswith("/"):
                return self._answer(conversation, line)
            conversation, note = run_command(line, conversation, self._remote)
            self._print_note(note)
        except MillmError as error:
            print_line(self._notes, f"error: {error.message}", style="red")
        return conversation

    def _answer(self, conversation: Conversation, prompt: str) -> Conversation:
        written: list[str] = []
        receipt, reason = None, None
        try:
            with closing(self._remote.stream_chat(conversation.request_body(prompt))) as chunks:
                for chunk in chunks:
                    for choice in chunk.choices:
                        self._print_answer_text(choice.delta.content or "", written)
                        reason = choice.finish_reason or reason
                    receipt = chunk.millm or receipt
        except KeyboardInterrupt:
            reason = "stopped"
        finally:
            if written or reason:
                self._out.out("", highlight=False)
        self._print_note(footnote(receipt, conversation, reason))
        return conversation.with_turn(prompt, "".join(written)) if written else conversation

    def _print_answer_text(self, text: str, written: list[str]) -> None:
        if text:
            written.append(text)
            self._out.out(replace_control_chars(text), end="", highlight=False)

    def _print_note(self, text: str) -> None:
        print_line(self._notes, text, style="dim")


def read_prompts() -> Iterator[str]:
    """Lines that are not blank, from the terminal or a pipe, until it ends."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    question = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(question)
        except EOFError:
            return
        if line.strip():
            yield line.rstrip()


def footnote(receipt: ChunkReceipt | None, conversation: Conversation, reason: str | None) -> str:
    """The steering of an answer, and why it ended early if it did."""
    parts = []
    if receipt and receipt.steering is None:
        parts.append("base model")
    elif receipt:
        parts.append(f"profile {receipt.profile}" if receipt.profile else conversation.steering_text)
        parts.append(f"{receipt.tokens_steered} tokens steered")
        parts.append(f"delta {receipt.delta_norm_ratio:.1%} of the residual")
    ends = {"length": "cut off at the token limit", "stopped": "stopped"}
    return " · ".join([*parts, *([ends[reason]] if reason in ends else [])])


CommandResult = tuple[Conversation, str]
"""The new conversation, and a note to print."""


@dataclass(frozen=True)
class ChatCommand:
    usage: str
    summary: str
    run: Callable[[Conversation, str, RemoteServer], CommandResult]


def run_command(line: str, conversation: Conversation, remote: RemoteServer) -> CommandResult:
    """Raises MillmError for an unknown command or an invalid argument; the conversation stays as it was."""
    name, _, rest = line.partition(" ")
    if name not in CHAT_COMMANDS:
        raise InvalidRequest(f"there is no command {name}; /help lists them")
    return CHAT_COMMANDS[name].run(conversation, rest.strip(), remote)


def steer_with_profile(conversation: Conversation, name: str, remote: RemoteServer) -> Conversation:
    """Raises ProfileNotFound, listing the available profiles."""
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
    profiles = [entry.millm for entry in remote.served_models() if entry.millm.profile]
    lines = [
        f"{'*' if one.profile == conversation.steering else ' '} {one.profile}: {one.description}" for one in profiles
    ]
    return conversation, "\n".join(lines) or "no profile fits what is attached"


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
    "/reset": ChatCommand("/reset", "start a new conversation", _run_reset),
    "/help": ChatCommand("/help", "this list", _run_help),
}


def parse_features(text: str) -> FeatureSettings:
    """Any number of `INDEX[@SAE] STRENGTH [mode] [unit]`. Raises InvalidSteering naming the word that is wrong."""
    words = text.replace("=", " ").replace(",", " ").split()
    features = []
    while words:
        feature, words = _parse_first(words)
        features.append(feature)
    return tuple(features)


def merge_features(current: FeatureSettings, new: FeatureSettings) -> FeatureSettings:
    """`new` in place of the same features in `current`; adding 0 removes a feature."""
    merged = {(feature.index, feature.sae): feature for feature in (*current, *new)}
    return tuple(feature for feature in merged.values() if feature.strength or feature.mode != "add")


def describe_features(features: Sequence[FeatureSetting]) -> str:
    """In the syntax of `parse_features`."""
    return ", ".join(map(_describe_feature, features))


def _parse_first(words: list[str]) -> tuple[FeatureSetting, list[str]]:
    """The first feature, and the words after it."""
    index, _, sae = words[0].partition("@")
    if not (index.isascii() and index.isdecimal()):
        raise InvalidSteering(
            f"{words[0]!r} is neither a feature's index nor a mode ({', '.join(MODES)}) nor a unit ({', '.join(UNITS)})"
        )
    strength, rest = _parse_strength(words[1:])
    marks = list(takewhile((*MODES, *UNITS).__contains__, rest))
    mode, unit = _pick_one(marks, MODES, "add"), _pick_one(marks, UNITS, "raw")
    if strength is None and mode != "ablate":
        raise InvalidSteering(f"feature {index}: say how strongly, such as /steer {index} 80")
    fields: dict[str, Any] = {"mode": mode, "unit": unit, "sae": sae or None}
    return FeatureSetting(index=int(index), strength=strength or 0.0, **fields), rest[len(marks) :]


def _parse_strength(words: list[str]) -> tuple[float | None, list[str]]:
    try:
        strength = float(words[0])
    except (IndexError, ValueError):
        return None, words
    if not math.isfinite(strength):
        raise InvalidSteering(f"strength {words[0]!r} is not a finite number")
    return strength, words[1:]


def _pick_one(marks: list[str], known: tuple[str, ...], default: str) -> str:
    chosen = [mark for mark in marks if mark in known]
    if len(chosen) > 1:
        raise InvalidSteering(f"{chosen[0]!r} and {chosen[1]!r} exclude each other")
    return chosen[0] if chosen else default


def _describe_feature(feature: FeatureSetting) -> str:
    name = f"{feature.index}@{feature.sae}" if feature.sae else str(feature.index)
    sign = "+" if feature.mode == "add" else ""
    strength = "" if feature.mode == "ablate" else f"{feature.strength:{sign}}".removesuffix(".0")
    marks = ("" if feature.mode == "add" else feature.mode, "" if feature.unit == "raw" else feature.unit)
    return " ".join(part for part in (name, strength, *marks) if part)
