"""The life of a server on a bound port: load, serve, drain, stop; and its announcements on the terminal or in the log.

The port answers during start-up (health checks; 503 for the rest), and until the last answer when stopping.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import structlog
import uvicorn
from rich.console import Console
from rich.markup import escape

from millm.api import h11_protocol
from millm.api.app import create_app
from millm.cli.serve import PrepareStartup, ServerResources, StartupPlan
from millm.cli.terminal import ProgressReporter, progress_bars, progress_reporter
from millm.database import Database
from millm.demo import bundle
from millm.engine.client import EngineClient
from millm.events import EventBus
from millm.hub.downloads import Downloads
from millm.hub.home import Home
from millm.hub.labels import Labels
from millm.hub.library import Hub, Library
from millm.lifecycle.changes import unload_when_idle
from millm.lifecycle.models import load
from millm.lifecycle.restore import restore
from millm.lifecycle.saes import attach
from millm.lifecycle.shutdown import StopSignals, abort_requests, back_up_daily, start_draining, wait_for_requests
from millm.lifecycle.steering import activate_profile
from millm.profiles.schema import Profile
from millm.profiles.store import MAX_LISTED_NAMES, ProfileStore
from millm.settings import Settings
from millm.state import State
from millm.status import DesiredState, ModelSpec, read_desired

log = structlog.get_logger()


class LogAnnouncer:
    """Announces as log events, for a JSON log."""

    def show_progress(self) -> AbstractContextManager[ProgressReporter]:
        return progress_reporter(_StageLogger())

    def announce_ready(self, state: State, url: str, host: str) -> None:
        for problem in _startup_problems(state):
            log.error("server.notice", text=problem)
        for warning in exposure_warnings(state.settings, host):
            log.warning("server.open", text=warning.text)
        for attached in state.saes.values():
            for text in attached.facts.warnings:
                log.warning("sae.warning", sae=attached.facts.sae, text=text)
        model = state.model
        log.info(
            "server.ready", url=url, model=model and model.name, device=model and model.facts.device,
            weights=model and model.facts.weights, saes=list(state.saes), profiles=len(state.profiles),
        )  # fmt: skip

    def announce_stopping(self, answers: int, seconds: float) -> None:
        log.info("server.stopping", answers=answers, seconds=seconds if answers else 0.0)

    def announce_aborted_answers(self, answers: int) -> None:
        if answers:
            log.warning("server.answers_ended", answers=answers)

    def announce_stopped(self) -> None:
        log.info("server.stopped")


class _StageLogger:
    """Logs each stage once, without its progress."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def __call__(self, stage: str, _done: int, total: int) -> None:
        if stage not in self._logged:
            self._logged.add(stage)
            log.info("server.stage", stage=stage, total=total)


_NOTE_FORMAT = " [yellow]![/] {}"
_ALARM_FORMAT = " [bold red]![/] {}"


class TerminalAnnouncer:
    def __init__(self, console: Console) -> None:
        self._console = console

    def show_progress(self) -> AbstractContextManager[ProgressReporter]:
        return progress_bars(self._console)

    def announce_ready(self, state: State, url: str, host: str) -> None:
        for problem in _startup_problems(state):
            self._print(_ALARM_FORMAT.format(escape(problem)))
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
        for exposure in exposure_warnings(state.settings, host):
            self._print((_ALARM_FORMAT if exposure.is_urgent else _NOTE_FORMAT).format(escape(exposure.text)))

    def announce_stopping(self, answers: int, seconds: float) -> None:
        if answers:
            count = _count_answers(answers)
            self._print(f" stopping: waiting up to {seconds:g} s for {count}; Ctrl+C again stops at once")

    def announce_aborted_answers(self, answers: int) -> None:
        if answers:
            text = f"{_count_answers(answers)} had not ended, and got an error instead of the rest"
            self._print(_NOTE_FORMAT.format(text))

    def announce_stopped(self) -> None:
        """Nothing: the shell's prompt shows it."""

    def _print(self, markup: str) -> None:
        self._console.print(markup, soft_wrap=True)


def _startup_problems(state: State) -> list[str]:
    return [problem for problem in (state.hub.database.notice, state.cause and state.cause.message) if problem]


def _model_line(state: State) -> str:
    if state.model is None:
        return " no model is loaded: `millm pull OWNER/NAME`, then `millm load OWNER/NAME`"
    facts = state.model.facts
    size = f"{facts.parameters / 1e6:,.0f} M"
    return f" [green]✓[/] {escape(state.model.name)} ({size}, {facts.weights}, {facts.device})"


def _profile_names(profiles: ProfileStore) -> str:
    """The first names, and how many more."""
    names = [profile.name for profile in profiles.all()[:MAX_LISTED_NAMES]]
    more = len(profiles) - len(names)
    return ", ".join([*names, *([f"and {more:,} more"] if more else [])])


def _count_answers(answers: int) -> str:
    return f"{answers} answer" if answers == 1 else f"{answers:,} answers"


Announcer = TerminalAnnouncer | LogAnnouncer


class ExposureWarning(NamedTuple):
    """A way into the server that its operator may not expect."""

    text: str
    is_urgent: bool = False


def exposure_warnings(settings: Settings, host: str) -> list[ExposureWarning]:
    warnings = []
    is_loopback = host == "::1" or host.startswith("127.")
    if not is_loopback and settings.api_key:
        text = f"listening on {host}: anyone who reaches this machine and has the key can use the server"
        warnings.append(ExposureWarning(text))
    elif not is_loopback:
        text = (
            f"listening on {host} without a key: anyone who reaches this machine can use the server and change what"
            " it does; set MILLM_API_KEY, or --host 127.0.0.1"
        )
        warnings.append(ExposureWarning(text, is_urgent=True))
    if "*" in settings.allowed_hosts:
        warnings.append(ExposureWarning("MILLM_ALLOWED_HOSTS=*: a web page that rebinds DNS can use the server"))
    return warnings


CHANGES_TIMEOUT_SECONDS = 2.0
"""For pending changes to fail after the engine has stopped."""


def serve(resources: ServerResources, prepare: PrepareStartup, console: Console) -> None:
    """Returns after a signal to stop."""
    announcer = LogAnnouncer() if resources.settings.log_format == "json" else TerminalAnnouncer(console)
    asyncio.run(_serve(resources, prepare, announcer))
    announcer.announce_stopped()


async def _serve(resources: ServerResources, prepare: PrepareStartup, announcer: Announcer) -> None:
    settings, home = resources.settings, resources.home
    engine = EngineClient(
        max_queue=settings.max_queue, step_seconds=settings.step_timeout, log_level=settings.log_level
    )
    with contextlib.closing(Database(home.database)) as database:
        state = create_state(settings, engine, home, database)
        await _run_until_stopped(state, resources, prepare, announcer)


def create_state(settings: Settings, engine: EngineClient, home: Home, database: Database) -> State:
    """A state with nothing loaded; its downloads publish to its event bus."""
    events = EventBus()
    downloads = Downloads(database, settings, events.publish_job)
    library = Library(home, database, bundle.models(home.folder), bundle.saes(), trusted=settings.trust_remote_code)
    hub = Hub(home, database, library, downloads)
    return State(settings, engine, ProfileStore(database), hub, Labels(database), events=events)


async def _run_until_stopped(
    state: State, resources: ServerResources, prepare: PrepareStartup, announcer: Announcer
) -> None:
    stop_signals, listener = _handle_stop_signals(), resources.listener
    server = _UvicornServer(h11_protocol.uvicorn_config(create_app(state), state.settings, stop_seconds=3))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await state.engine.start(resources.engine)
    startup = asyncio.create_task(_start_up(state, prepare, announcer))
    background = (asyncio.create_task(unload_when_idle(state)), asyncio.create_task(back_up_daily(state)))
    try:
        await _wait_for_first(startup, serving, stop_signals)
        if startup.done():
            announcer.announce_ready(state, _listener_url(listener), listener.getsockname()[0])
            await _wait_for_first(serving, stop_signals)
        startup.cancel()
        await _drain_and_stop(state, stop_signals, announcer)
    finally:
        for task in (startup, *background):
            task.cancel()
        server.force_exit = stop_signals.second.is_set()
        server.should_exit = True
        await asyncio.gather(serving, startup, *background, return_exceptions=True)
        await state.hub.downloads.close()
        await state.engine.close()
        await _wait_for_changes(state.tasks)


async def _wait_for_changes(changes: set[asyncio.Task[Any]]) -> None:
    """Wait up to CHANGES_TIMEOUT_SECONDS for pending changes to fail."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*changes, return_exceptions=True), CHANGES_TIMEOUT_SECONDS)


def _handle_stop_signals() -> StopSignals:
    """Record SIGINT and SIGTERM; uvicorn would close the port at the first one, and raise it again at the end."""
    stop_signals, loop = StopSignals(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_signals.record)
    return stop_signals


async def _wait_for_first(*tasks: asyncio.Task[None] | StopSignals) -> None:
    """Returns when a task is done or a signal has arrived. Raises the task's exception."""
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(each.first.wait()) if isinstance(each, StopSignals) else each for each in tasks
    ]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in done:
        each.result()


async def _drain_and_stop(state: State, stop_signals: StopSignals, announcer: Announcer) -> None:
    start_draining(state)
    seconds = state.settings.stop_timeout
    announcer.announce_stopping(state.drain_gate.active_requests, seconds)
    await wait_for_requests(state, seconds, stop_signals)
    announcer.announce_aborted_answers(state.drain_gate.active_requests)
    await abort_requests(state)


class _UvicornServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `_handle_stop_signals` does it."""
        yield


def _listener_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _start_up(state: State, prepare: PrepareStartup, announcer: Announcer) -> None:
    """Runs while the engine process still imports torch."""
    home = state.hub.home
    state.is_starting = True
    with announcer.show_progress() as report:
        plan = await asyncio.to_thread(prepare, home, report)
        profile = await asyncio.to_thread(_import_startup_profiles, state.profiles, home, plan)
        await _load_startup_models(state, plan, report)
    if profile:
        await activate_profile(state, profile.name)
    state.is_starting = False
    state.publish_status()


async def _load_startup_models(state: State, plan: StartupPlan, report: ProgressReporter) -> None:
    if plan.model is None:
        desired = read_desired(state.hub.database) if plan.should_restore else DesiredState()
        await restore(state, desired, report.report_event)
    else:
        spec = ModelSpec(id=plan.model.name)
        await load(state, spec, location=plan.model, force=plan.force, on_progress=report.report_event)
    for sae, location in plan.saes:
        await attach(state, sae, location=location, on_progress=report.report_event)


def _import_startup_profiles(profiles: ProfileStore, home: Home, plan: StartupPlan) -> Profile | None:
    """Import the files of `plan` and of the home; returns the profile to activate, if one is named.

    Raises InvalidProfile or ProfileNotFound.
    """
    for path in (*plan.profile_files, *sorted(home.profiles.glob("*.json"))):
        profiles.import_file(path)
    if plan.active_file:
        return profiles.import_or_find(plan.active_file)
    return profiles.find(plan.active_profile) if plan.active_profile else None
