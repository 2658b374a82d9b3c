"""The commands of `millm`. Only the command of this run is imported, so that `millm --help` is immediate.

Importing the web server for every `--help` would cost most of a second; hence `import_by_name`, which `serve.py` uses
once more to acquire the home and the port first.
"""

import signal
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import typer

from millm import __version__


class Command(NamedTuple):
    summary: str
    panel: str
    module: str
    """A module of this package that defines the function, or a `group` of commands."""
    function: str = "run"


SERVE, LIBRARY, LOOK = "Serve", "Library: what is on disk", "Look"
_ROWS = {
    "demo": ("A steered chat on a small real model: fetches 93 MB once, then serves it.", SERVE, "serve", "demo"),
    "serve": ("Serve a Hugging Face model, with SAEs attached and profiles to choose from.", SERVE, "serve", "serve"),
    "load": ("Load a model into the running server, in place of the one it has.", SERVE, "models", "load_model"),
    "unload": ("Unload the running server's model and its SAEs; the server stays up.", SERVE, "models", "unload_model"),
    "attach": ("Attach an SAE to the model that is loaded, and show what was measured.", SERVE, "models", "attach_sae"),
    "detach": ("Take an SAE off the model; it stays in the library.", SERVE, "models", "detach_sae"),
    "chat": ("Chat in the terminal with a running server; steer with /steer 11 80.", SERVE, "chat"),
    "pull": ("Download a model or an SAE from Hugging Face; shows first what it is.", LIBRARY, "library", "pull"),
    "list": ("List the models of the library, or its SAEs.", LIBRARY, "library", "list_library"),
    "show": ("Show everything that is known about a model or an SAE of the library.", LIBRARY, "library", "show"),
    "estimate": ("Estimate how much memory a model would take, without loading it.", LIBRARY, "library", "estimate"),
    "saes": ("Search the public SAEs by model, layer, width and site.", LIBRARY, "library", "find_saes"),
    "import": ("Add a folder of yours to the library. It is linked, not copied.", LIBRARY, "library", "import_folder"),
    "rm": ("Delete a model or an SAE from the disk.", LIBRARY, "library", "remove"),
    "profiles": ("List, choose, compare, import and export profiles: saved steerings.", LOOK, "profiles"),
    "features": ("Find what an SAE's features mean, by words or by texts in which they fire.", LOOK, "features"),
    "ps": ("Show what runs, on which device, and until when.", LOOK, "models", "show_status"),
    "bench": ("Measure a running server: tokens per second, and how long a reader waits.", LOOK, "bench"),
    "sweep": ("Turn a steering up step by step, and measure what it does to an answer.", LOOK, "sweep"),
    "doctor": ("Check this machine and say how to mend what is missing.", LOOK, "doctor"),
}
COMMANDS = {name: Command(*row) for name, row in _ROWS.items()}
"""In the order of the help."""

HELP = """Serve a Hugging Face model and turn the knobs inside it.

Start here:  [bold]millm demo[/]

Then talk to it:  [bold]millm chat[/]

Every setting is an environment variable too: `millm serve --help`. `--debug` anywhere shows the trace of an error.
"""


def run(arguments: list[str]) -> None:
    build_app(arguments)(args=arguments, prog_name="millm")


def build_app(arguments: list[str]) -> typer.Typer:
    """All commands by name and summary; only the one named in `arguments` with its code."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.callback(invoke_without_command=True)(_version)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        if name == chosen:
            _add_command(app, name, command)
        else:
            app.command(name, help=command.summary, short_help=command.summary, rich_help_panel=command.panel)(
                _placeholder
            )
    return app


def _add_command(app: typer.Typer, name: str, command: Command) -> None:
    module = import_by_name(command.module)
    if hasattr(module, "group"):
        app.add_typer(module.group, name=name, short_help=command.summary, rich_help_panel=command.panel)
    else:
        function = getattr(module, command.function)
        app.command(name, short_help=command.summary, rich_help_panel=command.panel)(function)


def import_by_name(module: str) -> ModuleType:
    """Import a module of this package. Ctrl+C meanwhile ends the process at once.

    An interrupt inside pydantic's compiled core would surface as another error, with a trace.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    imported = import_module(f"millm.cli.{module}")
    signal.signal(signal.SIGINT, handler)
    return imported


def _version(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        typer.echo(f"millm {__version__}")
        raise typer.Exit


def _placeholder() -> None:
    """Stands for every command that this run does not call."""
