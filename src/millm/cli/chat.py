"""`millm chat`: talk to a running server in the terminal, and turn its knobs while you do."""

import io
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Annotated

import typer
from rich.console import Console

from millm.cli.chat_commands import run_command, steer_with_profile
from millm.cli.chunks import ChunkReceipt
from millm.cli.conversation import Conversation
from millm.cli.options import ApiKey, Url
from millm.cli.remote import RemoteServer, connect
from millm.cli.visible import replace_control_chars
from millm.errors import MillmError

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
