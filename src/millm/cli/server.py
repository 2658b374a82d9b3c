"""The start of a server, before anything heavy is imported: the home and the port are taken, or it is refused.

Then the engine's process is started, and imports torch while this one imports what serves: `serving`, by name as a
command is. So a second server is refused in a moment, and not after everything that it does not get to use.
"""

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from rich.console import Console

from millm import logs
from millm.cli import import_by_name
from millm.cli.progress import ProgressReporter
from millm.engine.supervisor import SpawnedProcess, spawn_engine
from millm.errors import CannotStart, MillmError, PortTaken
from millm.hub.home import Home
from millm.hub.locate import LocalCheckpoint
from millm.settings import Settings
from millm.status import SaeSpec

log = structlog.get_logger()


@dataclass(frozen=True)
class StartupPlan:
    """What to bring up: what is named here, or else what was acknowledged last."""

    model: LocalCheckpoint | None = None
    saes: Sequence[tuple[SaeSpec, LocalCheckpoint]] = ()
    profile_files: Sequence[Path] = ()
    active_profile: str | None = None
    active_file: Path | None = None
    """A profile's file, instead of the name of one."""
    force: bool = False
    """Load the model whatever the estimate of its memory says."""
    should_restore: bool = True
    """Without a model: bring back what was acknowledged last."""


PrepareStartup = Callable[[Home, ProgressReporter], StartupPlan]
"""Finds or fetches everything, in a thread of its own."""


@dataclass(frozen=True)
class ServerResources:
    """What a server has before it serves."""

    settings: Settings
    home: Home
    listener: socket.socket
    engine: SpawnedProcess


def run_server(settings: Settings, prepare: PrepareStartup, console: Console) -> None:
    """Returns when the server was asked to stop. Raises CannotStart and its kin before anything heavy happens."""
    home = Home(settings.home_folder)
    with logs.server_logging(settings), _log_fatal_errors(settings):
        home.create()
        with home.lock(), contextlib.closing(_bind_socket(settings)) as listening:
            engine = spawn_engine(settings.log_level, settings.step_timeout)
            import_by_name("serving").serve(ServerResources(settings, home, listening, engine), prepare, console)


@contextlib.contextmanager
def _log_fatal_errors(settings: Settings) -> Iterator[None]:
    """In a log that is all JSON, why it cannot start or go on is a line, too. Raises SystemExit then."""
    if settings.log_format != "json":
        yield
        return
    try:
        yield
    except MillmError as error:
        log.error("server.cannot_start", code=error.code, reason=error.message)
        raise SystemExit(1) from error
    except Exception as error:  # the process's edge: a trace on stderr would be no line of the log
        log.critical("server.crashed", exc_info=True)
        raise SystemExit(1) from error


def _bind_socket(settings: Settings) -> socket.socket:
    """Raises PortTaken or CannotStart; an empty host, which would be every address there is, is refused."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only then
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host or ".", settings.port))
        listening.listen(2048)
    except (OSError, UnicodeError) as error:
        listening.close()
        raise _bind_error(settings, error) from error
    return listening


def _bind_error(settings: Settings, error: OSError | UnicodeError) -> CannotStart:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {settings.port} is taken by another program; stop it, or choose one with --port (0: any free port)"
        )
    reason = error.strerror if isinstance(error, OSError) else "not a host's name"
    return CannotStart(f"cannot listen on {settings.host!r}, port {settings.port} ({reason}); give another with --host")
