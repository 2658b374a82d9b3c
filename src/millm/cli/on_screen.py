"""What a server says of itself to people at a terminal."""

from contextlib import AbstractContextManager

from rich.console import Console
from rich.markup import escape

from millm.cli.exposure import warnings_of
from millm.cli.progress import Reporter, reporting
from millm.profiles.store import MOST_NAMED, ProfileStore
from millm.state import State

_NOTE = " [yellow]![/] {}"
_ALARM = " [bold red]![/] {}"


class OnScreen:
    def __init__(self, console: Console) -> None:
        self._console = console

    def reporting(self) -> AbstractContextManager[Reporter]:
        return reporting(self._console)

    def is_ready(self, state: State, url: str, host: str) -> None:
        for told in (state.hub.database.notice, state.cause.message if state.cause else None):
            if told:
                self._say(_ALARM.format(escape(told)))
        self._say(_model(state))
        for attached in state.saes.values():
            sae = attached.facts
            explained = "" if sae.variance_explained is None else f", explains {sae.variance_explained:.0%}"
            self._say(f" [green]✓[/] SAE {escape(sae.sae)} on {sae.hook_point} ({sae.features:,} features{explained})")
            for warning in sae.warnings:
                self._say(_NOTE.format(escape(warning)))
        if state.profiles:
            self._say(f" [green]✓[/] profiles: {escape(_named(state.profiles))}")
        self._say(f" [bold]ready[/]  {url}   OpenAI base URL {url}/v1   (Ctrl+C stops)")
        for warned in warnings_of(state.settings, host):
            self._say((_ALARM if warned.is_urgent else _NOTE).format(escape(warned.text)))

    def stops(self, answers: int, seconds: float) -> None:
        if answers:
            self._say(f" stopping: waiting up to {seconds:g} s for {_counted(answers)}; Ctrl+C again stops at once")

    def sends_away(self, answers: int) -> None:
        if answers:
            self._say(_NOTE.format(f"{_counted(answers)} had not ended, and got an error instead of the rest"))

    def has_stopped(self) -> None:
        """The shell's prompt says so."""

    def _say(self, words: str) -> None:
        self._console.print(words, soft_wrap=True)


def _model(state: State) -> str:
    if state.model is None:
        return " no model is loaded: `millm pull OWNER/NAME`, then `millm load OWNER/NAME`"
    facts = state.model.facts
    size = f"{facts.parameters / 1e6:,.0f} M"
    return f" [green]✓[/] {escape(state.model.name)} ({size}, {facts.weights}, {facts.device})"


def _named(profiles: ProfileStore) -> str:
    """Some of them."""
    names = [profile.name for profile in profiles.all()[:MOST_NAMED]]
    more = len(profiles) - len(names)
    return ", ".join([*names, *([f"and {more:,} more"] if more else [])])


def _counted(answers: int) -> str:
    return f"{answers} answer" if answers == 1 else f"{answers:,} answers"
