"""Every way miLLM can refuse or fail, as one tree: a status, a stable code and a sentence that names the thing.

    MillmError
    ├── InvalidRequest            400  the caller asked for something that cannot be
    │   ├── UnsupportedParameter       a field we know and do not do
    │   ├── ContextLengthExceeded      the prompt does not fit the model's context
    │   ├── InvalidSteering            a feature, strength, unit, mode or SAE that cannot be applied
    │   ├── InvalidProfile             a profile file that is not one, or does not fit what is attached
    │   ├── InvalidModel               a folder that is not a model we can load
    │   ├── InvalidSae                 an SAE we cannot read exactly
    │   └── SaeMismatch                an SAE that does not belong on this model, layer or hook point
    ├── NotFound                  404
    │   ├── ModelNotFound
    │   └── ProfileNotFound
    ├── Unavailable               503  try again: something is loading, full or restarting
    │   ├── ModelNotLoaded
    │   ├── QueueFull
    │   ├── EngineCrashed
    │   └── InsufficientMemory
    ├── EngineFailed              500  a step of the engine raised; the log has the trace
    └── CannotStart               (terminal) the command cannot do what it was asked
        ├── PortTaken
        ├── HomeLocked
        ├── DownloadFailed
        └── HashMismatch

A message is one line, says what and why and the way out, and never holds a path of the server, a token or a trace
(the terminal, which belongs to the person who owns the paths, may name them).
"""

from typing import ClassVar


class MillmError(Exception):
    """Base of every error we raise on purpose; `code` is part of the API and never changes."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retry_after_seconds: ClassVar[int | None] = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(MillmError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class InvalidSteering(InvalidRequest):
    code = "invalid_steering"


class InvalidProfile(InvalidRequest):
    code = "invalid_profile"


class InvalidModel(InvalidRequest):
    code = "invalid_model"


class InvalidSae(InvalidRequest):
    code = "invalid_sae"


class SaeMismatch(InvalidRequest):
    code = "sae_mismatch"


class NotFound(MillmError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class ProfileNotFound(NotFound):
    code = "profile_not_found"


class Unavailable(MillmError):
    status = 503
    code = "unavailable"
    retry_after_seconds = 2


class ModelNotLoaded(Unavailable):
    code = "model_not_loaded"


class QueueFull(Unavailable):
    code = "queue_full"


class EngineCrashed(Unavailable):
    code = "engine_crashed"


class InsufficientMemory(Unavailable):
    code = "insufficient_memory"


class EngineFailed(MillmError):
    code = "engine_failed"


class CannotStart(MillmError):
    code = "cannot_start"


class PortTaken(CannotStart):
    code = "port_taken"


class HomeLocked(CannotStart):
    code = "home_locked"


class DownloadFailed(CannotStart):
    code = "download_failed"


class HashMismatch(CannotStart):
    code = "hash_mismatch"


def _tree(root: type[MillmError]) -> list[type[MillmError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


BY_CODE: dict[str, type[MillmError]] = {error.code: error for error in _tree(MillmError)}
"""Errors cross the process boundary as (code, message) and are raised again on the other side."""


def from_code(code: str, message: str, param: str | None = None) -> MillmError:
    return BY_CODE.get(code, EngineFailed)(message, param=param)
