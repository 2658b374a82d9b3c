"""The commands. Only the one that was asked for is imported, so that `millm --help` is immediate.

That one import by name is the second place (after `engine/process.py`) where a module is imported inside a function:
the alternative, importing the web server for every `--help`, costs most of a second.
"""

import signal
from collections.abc import Callable
from importlib import import_module

import typer

from millm import __version__

COMMANDS = {
    "demo": "A steered chat on a small real model: fetches 93 MB once, then serves it.",
    "serve": "Serve a Hugging Face model, with SAEs attached and profiles to choose from.",
    "chat": "Chat in the terminal with a running server; steer with /steer 11 80.",
    "bench": "Measure a running server: tokens per second, and how long a reader waits for them.",
    "doctor": "Check this machine and say how to mend what is missing.",
}

HELP = """Serve a Hugging Face model and turn the knobs inside it.

Start here:  [bold]millm demo[/]

Then talk to it:  [bold]millm chat[/]

Every setting is an environment variable too: `millm serve --help`. `--debug` anywhere shows the trace of an error.
"""


def run(arguments: list[str]) -> None:
    build(arguments)(args=arguments, prog_name="millm")


def build(arguments: list[str]) -> typer.Typer:
    """All commands by name and summary; the code behind the one named in `arguments`."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(_version)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = _import(name) if name == wanted else _unused
        app.command(name, help=None if name == wanted else summary, short_help=summary)(command)
    return app


def _import(name: str) -> Callable[..., None]:
    """The command's function. Ctrl+C meanwhile ends the process at once: an interrupt raised inside pydantic's compiled
    core would come out of the import as an error of another kind, with a trace.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    command: Callable[..., None] = import_module(f"millm.cli.{name}").run
    signal.signal(signal.SIGINT, handler)
    return command


def _version(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        typer.echo(f"millm {__version__}")
        raise typer.Exit


def _unused() -> None:
    """Stands for a command that this run does not call."""
