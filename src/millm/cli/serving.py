"""One server's life, on a port that is taken: load, serve, let answers end, and stop.

The port answers at once (health checks, 503 for the rest) while the model is still being fetched and loaded, and as
long as answers are still being made once the server was asked to stop.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from rich.console import Console

from millm import wire
from millm.app import create_app
from millm.cli.in_log import InLog
from millm.cli.on_screen import OnScreen
from millm.cli.progress import Reporter
from millm.cli.server import Boot, Prepare, Taken
from millm.demo import bundle
from millm.desired import Desired, WantedModel, read
from millm.engine.client import EngineClient
from millm.events import Events
from millm.hub.downloads import Downloads
from millm.hub.home import Home
from millm.hub.hub import Hub
from millm.hub.labels import Labels
from millm.hub.library import Library
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

CHANGES_SECONDS = 2.0
"""For a change to notice that the engine has been ended."""

Voice = OnScreen | InLog


def serve(taken: Taken, prepare: Prepare, console: Console) -> None:
    """Until it is asked to stop."""
    voice = InLog() if taken.settings.log_format == "json" else OnScreen(console)
    asyncio.run(_serve(taken, prepare, voice))
    voice.has_stopped()


async def _serve(taken: Taken, prepare: Prepare, voice: Voice) -> None:
    settings, home = taken.settings, taken.home
    engine = EngineClient(
        max_queue=settings.max_queue,
        step_seconds=settings.step_timeout,
        log_level=settings.log_level,
    )
    with contextlib.closing(Database(home.database)) as database:
        state = state_of(settings, engine, home, database)
        await _run(state, taken, prepare, voice)


def state_of(settings: Settings, engine: EngineClient, home: Home, database: Database) -> State:
    """With nothing loaded yet; its downloads tell those who listen to its events."""
    events = Events()
    downloads = Downloads(database, settings, events.publish_job)
    library = Library(home, database, bundle.models(home.folder), bundle.saes(), trusted=settings.trust_remote_code)
    hub = Hub(home, database, library, downloads)
    return State(settings, engine, ProfileStore(database), hub, Labels(database), events=events)


async def _run(state: State, taken: Taken, prepare: Prepare, voice: Voice) -> None:
    asked, listening = _asked_by_signals(), taken.listening
    server = _Server(wire.config(create_app(state), state.settings, stop_seconds=3))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await state.engine.start(taken.engine)
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
        await _ended(state.tasks)


async def _ended(changes: set[asyncio.Task[Any]]) -> None:
    """What was being loaded or attached fails with the engine; whoever asked for it has been told, or is gone."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*changes, return_exceptions=True), CHANGES_SECONDS)


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
    """The engine's process imports torch meanwhile."""
    home = state.hub.home
    state.is_starting = True
    with voice.reporting() as report:
        boot = await asyncio.to_thread(prepare, home, report)
        chosen = await asyncio.to_thread(_take_in, state.profiles, home, boot)
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
