"""One server's life: take the home and the port, then load, serve, let answers end, and stop.

The port answers at once (health checks, 503 for the rest) while the model is still being fetched and loaded, and as
long as answers are still being made once the server was asked to stop.
"""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from rich.console import Console

from millm import logs, wire
from millm.app import create_app
from millm.cli.in_log import InLog
from millm.cli.on_screen import OnScreen
from millm.cli.progress import Reporter
from millm.demo import bundle
from millm.desired import Desired, WantedModel, WantedSae, read
from millm.engine.client import EngineClient
from millm.errors import CannotStart, PortTaken
from millm.events import Events
from millm.hub.downloads import Downloads
from millm.hub.home import Home
from millm.hub.hub import Hub
from millm.hub.labels import Labels
from millm.hub.library import Library
from millm.hub.locate import Located
from millm.lifecycle.backing_up import back_up_daily
from millm.lifecycle.models import load
from millm.lifecycle.restoring import restore
from millm.lifecycle.saes import attach
from millm.lifecycle.sleeping import watch_idle
from millm.lifecycle.steering import activate_profile
from millm.lifecycle.stopping import Asked, close_doors, let_end, send_away
from millm.profiles.contract import Profile
from millm.profiles.store import ProfileStore
from millm.settings import Settings
from millm.state import State
from millm.storage import Database


@dataclass(frozen=True)
class Boot:
    """What to bring up: what is named here, or else what was acknowledged last."""

    model: Located | None = None
    saes: Sequence[tuple[WantedSae, Located]] = ()
    profile_files: Sequence[Path] = ()
    active_profile: str | None = None
    active_file: Path | None = None
    """A profile's file, instead of the name of one."""
    force: bool = False
    """Load the model whatever the estimate of its memory says."""
    restores: bool = True
    """Without a model: bring back what was acknowledged last."""


Prepare = Callable[[Home, Reporter], Boot]
"""Finds or fetches everything, in a thread of its own."""

Voice = OnScreen | InLog


def run_server(settings: Settings, prepare: Prepare, console: Console) -> None:
    """Returns when the server was asked to stop. Raises CannotStart and its kin before anything heavy happens."""
    voice = InLog() if settings.log_format == "json" else OnScreen(console)
    home = Home(settings.home_folder)
    with logs.writing(settings), voice.refusing():
        home.create()
        with home.locked(), contextlib.closing(_bind(settings)) as listening:
            asyncio.run(_serve(settings, home, prepare, listening, voice))
        voice.has_stopped()


def _bind(settings: Settings) -> socket.socket:
    """Raises PortTaken or CannotStart; an empty host, which would be every address there is, is refused."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only then
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host or ".", settings.port))
        listening.listen(2048)
    except (OSError, UnicodeError) as error:
        listening.close()
        raise _refusal(settings, error) from error
    return listening


def _refusal(settings: Settings, error: OSError | UnicodeError) -> CannotStart:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {settings.port} is taken by another program; stop it, or choose one with --port (0: any free port)"
        )
    reason = error.strerror if isinstance(error, OSError) else "not a host's name"
    return CannotStart(f"cannot listen on {settings.host!r}, port {settings.port} ({reason}); give another with --host")


async def _serve(settings: Settings, home: Home, prepare: Prepare, listening: socket.socket, voice: Voice) -> None:
    engine = EngineClient(
        max_queue=settings.max_queue,
        step_seconds=settings.step_timeout,
        log_level=settings.log_level,
    )
    with contextlib.closing(Database(home.database)) as database:
        state = state_of(settings, engine, home, database)
        await _run(state, prepare, listening, voice)


def state_of(settings: Settings, engine: EngineClient, home: Home, database: Database) -> State:
    """With nothing loaded yet; its downloads tell those who listen to its events."""
    events = Events()
    downloads = Downloads(database, settings, events.publish_job)
    library = Library(home, database, bundle.models(home.folder), bundle.saes(), trusted=settings.trust_remote_code)
    hub = Hub(home, database, library, downloads)
    return State(settings, engine, ProfileStore(database), hub, Labels(database), events=events)


async def _run(state: State, prepare: Prepare, listening: socket.socket, voice: Voice) -> None:
    asked = _asked_by_signals()
    server = _Server(wire.config(create_app(state), state.settings, stop_seconds=3))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    booting = asyncio.create_task(_boot(state, prepare, voice))
    beside = (asyncio.create_task(watch_idle(state)), asyncio.create_task(back_up_daily(state)))
    try:
        await _first_of(booting, serving, asked)
        if booting.done():
            voice.is_ready(state, _url(listening), listening.getsockname()[0])
            await _first_of(serving, asked)
        booting.cancel()
        await _let_out(state, asked, voice)
    finally:
        for task in (booting, *beside):
            task.cancel()
        server.force_exit = asked.twice.is_set()
        server.should_exit = True
        await asyncio.gather(serving, booting, *beside, return_exceptions=True)
        await state.hub.downloads.close()
        await state.engine.close()


def _asked_by_signals() -> Asked:
    """Ctrl+C and SIGTERM: uvicorn would close the port at the first of them, and raise it again at the end."""
    asked, loop = Asked(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.again)
    return asked


async def _first_of(*tasks: asyncio.Task[None] | Asked) -> None:
    """Until one of them is done, or somebody has asked. Raises what the one raised."""
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(each.once.wait()) if isinstance(each, Asked) else each for each in tasks
    ]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in done:
        each.result()


async def _let_out(state: State, asked: Asked, voice: Voice) -> None:
    close_doors(state)
    seconds = state.settings.stop_timeout
    voice.stops(state.doors.inside, seconds)
    await let_end(state, seconds, asked)
    voice.sends_away(state.doors.inside)
    await send_away(state)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are taken care of."""
        yield


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _boot(state: State, prepare: Prepare, voice: Voice) -> None:
    """What can be refused early is refused before torch, in the engine's process, is imported."""
    home = state.hub.home
    state.is_starting = True
    with voice.reporting() as report:
        boot = await asyncio.to_thread(prepare, home, report)
        chosen = await asyncio.to_thread(_take_in, state.profiles, home, boot)
        await state.engine.start()
        await _bring_up(state, boot, report)
    if chosen:
        await activate_profile(state, chosen.name)
    state.is_starting = False
    state.tell_status()


async def _bring_up(state: State, boot: Boot, report: Reporter) -> None:
    if boot.model is None:
        before = read(state.hub.database) if boot.restores else Desired()
        await restore(state, before, report.event)
    else:
        wanted = WantedModel(id=boot.model.name)
        await load(state, wanted, located=boot.model, force=boot.force, on_progress=report.event)
    for sae, located in boot.saes:
        await attach(state, sae, located=located, on_progress=report.event)


def _take_in(profiles: ProfileStore, home: Home, boot: Boot) -> Profile | None:
    """The files of `boot` and of the home folder; → what is to be active. Raises InvalidProfile or ProfileNotFound."""
    for path in (*boot.profile_files, *sorted(home.profiles.glob("*.json"))):
        profiles.take_in(path)
    if boot.active_file:
        return profiles.bring(boot.active_file)
    return profiles.find(boot.active_profile) if boot.active_profile else None
