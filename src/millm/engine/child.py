"""The engine process as the API process holds it: started, sent commands, listened to, ended.

Knows nothing of what commands and events mean.
"""

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from millm.engine.messages import Command, EngineEvent, decode_events, encode
from millm.engine.process import main
from millm.errors import EngineCrashed

OnEvents = Callable[[list[EngineEvent]], None]
OnExit = Callable[["EngineProcess"], None]


@dataclass(frozen=True)
class SpawnedProcess:
    """A process that imports torch, and our end of the pipe to it; nobody listens yet."""

    process: BaseProcess
    connection: Connection


def spawn_engine(log_level: str, step_seconds: float) -> SpawnedProcess:
    """Needs no event loop. It ends when this process does."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=main, args=(theirs, log_level, step_seconds), name="millm-engine", daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl+C is not the engine's
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that only the child holds that end, and its death closes the pipe
    return SpawnedProcess(process, ours)


class EngineProcess:
    """One process and its pipe; `on_events` and `on_death` are called on the event loop that made this."""

    def __init__(self, spawned: SpawnedProcess, *, on_events: OnEvents, on_exit: OnExit) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_events, self._on_exit = on_events, on_exit
        self._process, self._connection = spawned.process, spawned.connection
        threading.Thread(target=self._listen, args=(self._connection,), name="millm-engine-events", daemon=True).start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, commands: Sequence[Command]) -> None:
        """All in one message: nothing comes between them. Raises EngineCrashed."""
        try:
            self._connection.send_bytes(encode(commands))
        except OSError as error:
            raise EngineCrashed("the engine has just stopped; it is being restarted, try again") from error

    def kill(self) -> None:
        """Its death is noticed as any other."""
        self._process.kill()

    async def end(self) -> None:
        """The engine keeps nothing that would have to be saved."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._process.terminate()
        self._process.join(3)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _listen(self, connection: Connection) -> None:
        """On a thread of its own, until the pipe closes."""
        try:
            while True:
                self._loop.call_soon_threadsafe(self._on_events, decode_events(connection.recv_bytes()))
        except (EOFError, OSError):
            connection.close()
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._on_exit, self)
