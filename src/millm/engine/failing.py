"""What the API process is told of a failure; the trace stays in the log."""

import structlog

from millm.engine import memory
from millm.engine.messages import CommandFailed
from millm.errors import EngineFailed, InsufficientMemory, MillmError

log = structlog.get_logger()


def failure_event(command_id: str, error: Exception) -> CommandFailed:
    """The last event of a command or a sequence that failed with `error`."""
    if memory.is_out_of_memory(error):
        error = InsufficientMemory("the device ran out of memory for this request; make it shorter or try again")
    elif not isinstance(error, MillmError):
        log.error("engine.failed", command=command_id, exc_info=error)
        error = EngineFailed("the engine could not finish this; the server's log has the reason")
    return CommandFailed(id=command_id, code=error.code, message=error.message, param=error.param)
