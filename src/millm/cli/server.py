"""One server's life: take the home and the port, then load, serve, and stop cleanly.

The port answers at once (health checks, 503 for the rest) while the model is still being fetched and loaded.
"""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from rich.console import Console
from rich.markup import escape

from millm import logs, wire
from millm.app import create_app
from millm.cli.progress import Reporter, reporting
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
from millm.profiles.contract import Profile
from millm.profiles.store import MOST_NAMED, ProfileStore
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


def run_server(settings: Settings, prepare: Prepare, console: Console) -> None:
    """Returns when the server was asked to stop. Raises CannotStart and its kin before anything heavy happens."""
    logs.configure(settings)
    home = Home(settings.home_folder)
    home.create()
    with home.locked(), contextlib.closing(_bind(settings)) as listening:
        asyncio.run(_serve(settings, home, prepare, listening, console))


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


async def _serve(settings: Settings, home: Home, prepare: Prepare, listening: socket.socket, console: Console) -> None:
    engine = EngineClient(
        max_queue=settings.max_queue,
        step_seconds=settings.step_timeout,
        log_level=settings.log_level,
    )
    with contextlib.closing(Database(home.database)) as database:
        state = state_of(settings, engine, home, database)
        await _run(state, prepare, listening, console)


def state_of(settings: Settings, engine: EngineClient, home: Home, database: Database) -> State:
    """With nothing loaded yet; its downloads tell those who listen to its events."""
    events = Events()
    downloads = Downloads(database, settings, events.publish_job)
    library = Library(home, database, bundle.models(home.folder), bundle.saes(), trusted=settings.trust_remote_code)
    hub = Hub(home, database, library, downloads)
    return State(settings, engine, ProfileStore(database), hub, Labels(database), events=events)


async def _run(state: State, prepare: Prepare, listening: socket.socket, console: Console) -> None:
    settings = state.settings
    server = _Server(wire.config(create_app(state), settings, stop_seconds=3))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    booting = asyncio.create_task(_boot(state, prepare, console))
    idling = asyncio.create_task(watch_idle(state))
    copying = asyncio.create_task(back_up_daily(state))
    try:
        await asyncio.wait({serving, booting}, return_when=asyncio.FIRST_COMPLETED)
        if booting.done():
            booting.result()
            _announce(state, listening, console)
            await serving
    finally:
        for task in (booting, idling, copying):
            task.cancel()
        server.should_exit = True
        await asyncio.gather(serving, booting, idling, copying, return_exceptions=True)
        await state.hub.downloads.close()
        await state.engine.close()


class _Server(uvicorn.Server):
    """Ctrl+C and SIGTERM end it as a success: uvicorn would raise them again, before the engine is ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _boot(state: State, prepare: Prepare, console: Console) -> None:
    """What can be refused early is refused before torch, in the engine's process, is imported."""
    home = state.hub.home
    state.is_starting = True
    with reporting(console) as report:
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


def _announce(state: State, listening: socket.socket, console: Console) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    for told in (state.hub.database.notice, state.cause.message if state.cause else None):
        if told:
            console.print(f" [bold red]![/] {escape(told)}", soft_wrap=True)
    if state.model:
        facts = state.model.facts
        size = f"{facts.parameters / 1e6:,.0f} M"
        console.print(f" [green]✓[/] {escape(state.model.name)} ({size}, {facts.weights}, {facts.device})")
    else:
        console.print(" no model is loaded: `millm pull OWNER/NAME`, then `millm load OWNER/NAME`")
    for attached in state.saes.values():
        sae = attached.facts
        explained = "" if sae.variance_explained is None else f", explains {sae.variance_explained:.0%}"
        console.print(
            f" [green]✓[/] SAE {escape(sae.sae)} on {sae.hook_point} ({sae.features:,} features{explained})",
            soft_wrap=True,
        )
        for warning in sae.warnings:
            console.print(f" [yellow]![/] {escape(warning)}", soft_wrap=True)
    if state.profiles:
        console.print(f" [green]✓[/] profiles: {escape(_named(state.profiles))}", soft_wrap=True)
    console.print(f" [bold]ready[/]  {url}   OpenAI base URL {url}/v1   (Ctrl+C stops)", soft_wrap=True)
    for warning in warnings_of(state.settings, host):
        console.print(warning, soft_wrap=True)


def _named(profiles: ProfileStore) -> str:
    """Some of them."""
    names = [profile.name for profile in profiles.all()[:MOST_NAMED]]
    more = len(profiles) - len(names)
    return ", ".join([*names, *([f"and {more:,} more"] if more else [])])


def warnings_of(settings: Settings, host: str) -> list[str]:
    """Who could come in that the operator may not have thought of."""
    told = []
    if not _is_loopback(host) and settings.api_key:
        told.append(
            f" [yellow]![/] listening on {host}: whoever reaches this machine and has the key can use the server"
        )
    elif not _is_loopback(host):
        told.append(
            f" [bold red]![/] listening on {host} [bold red]without a key[/]: everybody who reaches this machine can"
            " use the server and change what it does; set MILLM_API_KEY, or --host 127.0.0.1"
        )
    if "*" in settings.allowed_hosts:
        told.append(" [yellow]![/] MILLM_ALLOWED_HOSTS=*: a web page that rebinds DNS can use the server")
    return told


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")
