"""`millm chat`: talk to a running server in the terminal, and turn its knobs while you do.

Features as a person types and reads them: `11 80`, `11 0.5 norm`, `11 ablate`. Knows no server.

A conversation as a frozen value: what was said, and how the next answer is steered. Knows no server.

What `/something` does in a chat: a new conversation and a line to show, or a refusal that changes nothing.
"""

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
from millm.cli.options import ApiKey, Url
from millm.cli.terminal import replace_control_chars
from millm.errors import InvalidRequest, InvalidSteering, MillmError, ProfileNotFound
from millm.sae.steering import FeatureSetting, Mode, Unit

FeatureSettings = tuple[FeatureSetting, ...]
MODES: tuple[str, ...] = get_args(Mode)
UNITS: tuple[str, ...] = get_args(Unit)


def parse_features(text: str) -> FeatureSettings:
    """Any number of `INDEX[@SAE] STRENGTH [mode] [unit]`. Raises InvalidSteering naming the word that is wrong."""
    words = text.replace("=", " ").replace(",", " ").split()
    found = []
    while words:
        knob, words = _parse_first(words)
        found.append(knob)
    return tuple(found)


def merge_features(current: FeatureSettings, new: FeatureSettings) -> FeatureSettings:
    """`new` in place of the same features in `current`; adding 0 takes a feature out."""
    knobs = {(knob.index, knob.sae): knob for knob in (*current, *new)}
    return tuple(knob for knob in knobs.values() if knob.strength or knob.mode != "add")


def describe_features(features: Sequence[FeatureSetting]) -> str:
    """As `parse` reads it."""
    return ", ".join(_describe_feature(knob) for knob in features)


def _parse_first(words: list[str]) -> tuple[FeatureSetting, list[str]]:
    """The knob that `words` begin with, and the words behind it."""
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
    given: dict[str, Any] = {"mode": mode, "unit": unit, "sae": sae or None}
    return FeatureSetting(index=int(index), strength=strength or 0.0, **given), rest[len(marks) :]


def _parse_strength(words: list[str]) -> tuple[float | None, list[str]]:
    try:
        strength = float(words[0])
    except (IndexError, ValueError):
        return None, words
    if not math.isfinite(strength):
        raise InvalidSteering(f"strength {words[0]!r} is not a number that can be added")
    return strength, words[1:]


def _pick_one(marks: list[str], known: tuple[str, ...], default: str) -> str:
    given = [mark for mark in marks if mark in known]
    if len(given) > 1:
        raise InvalidSteering(f"{given[0]!r} and {given[1]!r} exclude each other")
    return given[0] if given else default


def _describe_feature(feature: FeatureSetting) -> str:
    name = f"{feature.index}@{feature.sae}" if feature.sae else str(feature.index)
    sign = "+" if feature.mode == "add" else ""
    strength = "" if feature.mode == "ablate" else f"{feature.strength:{sign}}".removesuffix(".0")
    marks = ("" if feature.mode == "add" else feature.mode, "" if feature.unit == "raw" else feature.unit)
    return " ".join(part for part in (name, strength, *marks) if part)


@dataclass(frozen=True)
class Conversation:
    model: str
    sampling: dict[str, object]
    """Fields of a request, such as `temperature`."""
    system: str | None = None
    steering: str | FeatureSettings | None = None
    """A profile's name; features, none of which is the base model; or None: as the server has it."""
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text), the user's and the assistant's in turn."""

    def request_body(self, prompt: str) -> dict[str, object]:
        """The request for the next answer."""
        said = [*((("system", self.system),) if self.system else ()), *self.turns, ("user", prompt)]
        messages = [{"role": role, "content": text} for role, text in said]
        return {"model": self.model, "messages": messages, **self.sampling, **_steering_fields(self.steering)}

    def with_turn(self, prompt: str, answer: str) -> "Conversation":
        return replace(self, turns=(*self.turns, ("user", prompt), ("assistant", answer)))

    @property
    def steering_text(self) -> str:
        """The steering in words."""
        match self.steering:
            case None:
                return "as the server has it"
            case str():
                return f"profile {self.steering}"
            case ():
                return "off: the base model"
            case knobs:
                return f"features {describe_features(knobs)}"


def _steering_fields(steering: str | FeatureSettings | None) -> dict[str, object]:
    match steering:
        case None:
            return {}
        case str():
            return {"profile": steering}
        case ():
            return {"steering": None}
        case knobs:
            return {"steering": {"features": msgspec.to_builtins(knobs)}}


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


with suppress(ImportError):  # not every Python is built with it
    import readline  # noqa: F401  arrow keys and history at the prompt


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
    asked = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    sampling: dict[str, object] = {name: value for name, value in asked.items() if value is not None}
    conversation = Conversation(remote.choose_model(model), sampling, system)
    if profile:
        conversation = steer_with_profile(conversation, profile, remote)
    Chat(remote, Console(emoji=False), Console(emoji=False, stderr=True)).talk(conversation)


class Chat:
    """Answers go to `out`, all that is about them to `notes`."""

    def __init__(self, remote: RemoteServer, out: Console, notes: Console) -> None:
        self._remote = remote
        self._out = out
        self._notes = notes

    def talk(self, conversation: Conversation) -> None:
        """Until the prompts end, `/quit`, or Ctrl+C at the prompt."""
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
        """What was refused is said, and changes nothing."""
        try:
            if not line.startswith("/"):
                return self._answer(conversation, line)
            conversation, told = run_command(line, conversation, self._remote)
            self._print_note(told)
        except MillmError as error:
            self._notes.print(
                f"error: {replace_control_chars(error.message)}", style="red", markup=False, soft_wrap=True
            )
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
        self._notes.print(replace_control_chars(text), style="dim", markup=False, highlight=False, soft_wrap=True)


def read_prompts() -> Iterator[str]:
    """Lines that hold something, from the terminal or a pipe, until it ends."""
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
    """What steered an answer, and why it ended where that was not the model's own choice."""
    parts = [] if receipt is None else _steering_parts(receipt, conversation)
    ends = {"length": "cut off at the token limit", "stopped": "stopped"}
    return " · ".join([*parts, *([ends[reason]] if reason in ends else [])])


def _steering_parts(receipt: ChunkReceipt, conversation: Conversation) -> list[str]:
    if receipt.steering is None:
        return ["base model"]
    by = f"profile {receipt.profile}" if receipt.profile else conversation.steering_text
    share = f"delta {receipt.delta_norm_ratio:.1%} of the residual"
    return [by, f"{receipt.tokens_steered} tokens steered", share]
