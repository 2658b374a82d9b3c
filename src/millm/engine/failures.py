"""What the engine reports of an exception: an event for the API process, or one line as a reason."""

import structlog
import torch

from millm.engine.messages import CommandFailed
from millm.errors import EngineFailed, InsufficientMemory, MillmError, NonFiniteOutput

log = structlog.get_logger()


def failure_event(command_id: str, error: Exception) -> CommandFailed:
    """Last event of a command or sequence that failed with `error`; the trace goes to the log only."""
    if is_out_of_memory(error):
        error = InsufficientMemory("the device ran out of memory for this request; make it shorter or try again")
    elif not isinstance(error, MillmError):
        log.error("engine.failed", command=command_id, exc_info=error)
        error = EngineFailed("the engine could not finish this; the server's log has the reason")
    return CommandFailed(id=command_id, code=error.code, message=error.message, param=error.param)


def is_out_of_memory(error: BaseException) -> bool:
    """On a CPU torch raises a plain RuntimeError with this text."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def non_finite_logits() -> NonFiniteOutput:
    return NonFiniteOutput("the model's logits are not finite numbers; a steering this strong can do that")


def first_line(error: Exception | str, limit: int = 160) -> str:
    """First line of the message, or the exception's class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]
