"""What a server says of itself to people at a terminal."""

from contextlib import AbstractContextManager

from rich.console import Console
from rich.markup import escape

from millm.cli.exposure import exposure_warnings
from millm.cli.progress import ProgressReporter, progress_bars
from millm.profiles.store import MAX_LISTED_NAMES, ProfileStore
from millm.state import State

_NOTE_FORMAT = " [yellow]![/] {}"
_ALARM_FORMAT = " [bold red]![/] {}"


class TerminalAnnouncer:
    def __init__(self, console: Console) -> None:
        self._console = console

    def show_progress(self) -> AbstractContextManager[ProgressReporter]:
        return progress_bars(self._console)

    def announce_ready(self, state: State, url: str, host: str) -> None:
        for told in (state.hub.database.notice, state.cause.message if state.cause else None):
            if told:
                self._print(_ALARM_FORMAT.format(escape(told)))
        self._print(_model_line(state))
        for attached in state.saes.values():
            sae = attached.facts
            explained = "" if sae.variance_explained is None else f", explains {sae.variance_explained:.0%}"
            self._print(
                f" [green]✓[/] SAE {escape(sae.sae)} on {sae.hook_point} ({sae.features:,} features{explained})"
            )
            for warning in sae.warnings:
                self._print(_NOTE_FORMAT.format(escape(warning)))
        if state.profiles:
            self._print(f" [green]✓[/] profiles: {escape(_profile_names(state.profiles))}")
        self._print(f" [bold]ready[/]  {url}   OpenAI base URL {url}/v1   (Ctrl+C stops)")
        for warned in exposure_warnings(state.settings, host):
            self._print((_ALARM_FORMAT if warned.is_urgent else _NOTE_FORMAT).format(escape(warned.text)))

    def announce_stopping(self, answers: int, seconds: float) -> None:
        if answers:
            self._print(
                f" stopping: waiting up to {seconds:g} s for {_count_answers(answers)}; Ctrl+C again stops at once"
            )

    def announce_aborted_answers(self, answers: int) -> None:
        if answers:
            self._print(
                _NOTE_FORMAT.format(f"{_count_answers(answers)} had not ended, and got an error instead of the rest")
            )

    def announce_stopped(self) -> None:
        """The shell's prompt says so."""

    def _print(self, words: str) -> None:
        self._console.print(words, soft_wrap=True)


def _model_line(state: State) -> str:
    if state.model is None:
        return " no model is loaded: `millm pull OWNER/NAME`, then `millm load OWNER/NAME`"
    facts = state.model.facts
    size = f"{facts.parameters / 1e6:,.0f} M"
    return f" [green]✓[/] {escape(state.model.name)} ({size}, {facts.weights}, {facts.device})"


def _profile_names(profiles: ProfileStore) -> str:
    """Some of them."""
    names = [profile.name for profile in profiles.all()[:MAX_LISTED_NAMES]]
    more = len(profiles) - len(names)
    return ", ".join([*names, *([f"and {more:,} more"] if more else [])])


def _count_answers(answers: int) -> str:
    return f"{answers} answer" if answers == 1 else f"{answers:,} answers"
