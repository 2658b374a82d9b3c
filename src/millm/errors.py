"""The error tree: each class has an HTTP status and a stable code.

    MillmError
    ├── InvalidRequest            400  a field is invalid
    │   ├── UnsupportedParameter       a known field that is not supported
    │   ├── ContextLengthExceeded      the prompt does not fit the model's context
    │   ├── InvalidSteering            a feature, strength, unit, mode or SAE that cannot be applied
    │   ├── InvalidProfile             a profile that is malformed or cannot be exported
    │   ├── InvalidImport              a file in no supported import format
    │   ├── InvalidModel               a folder that cannot be loaded as a model
    │   │   └── RemoteCodeRefused      a model that needs untrusted code
    │   ├── ModelCannotGenerate        generation with an encoder, which only embeds
    │   ├── AmbiguousLength            Content-Length together with Transfer-Encoding
    │   ├── EncodedBody           415  a compressed body
    │   ├── InvalidSae                 an SAE that cannot be read exactly
    │   └── SaeMismatch                an SAE of another width, layer or hook point
    │       └── SaeModelMismatch       the right width, another model
    ├── AddressNotAllowed         421  a `Host` that is not this server's
    ├── InvalidApiKey             401  a missing or unknown key
    ├── Forbidden                 403
    │   ├── OriginNotAllowed           a web page of another site
    │   └── ScopeMissing               a key without the needed scope
    ├── NotFound                  404
    │   ├── ModelNotFound
    │   ├── SaeNotFound
    │   ├── JobNotFound
    │   ├── RequestNotFound            a request that is not in the history
    │   ├── RepositoryNotFound         Hugging Face has no such repository, revision or folder
    │   └── ProfileNotFound
    ├── Conflict                  409  impossible in the current state
    │   ├── InUse                      deletion of a loaded model or attached SAE
    │   ├── ProfileNameTaken           another profile has that name
    │   ├── ProfileActive              deletion of the active profile
    │   ├── SteeringOutdated           the steering was changed concurrently
    │   └── RequestCancelled           cancelled through the queue
    ├── DoesNotFit                507
    │   ├── ModelTooLarge              more memory than the device has
    │   └── InsufficientDisk           more bytes than the disk has free
    ├── DownloadFailed            502
    │   ├── GatedRepository       403  its licence must be accepted, or access granted, first
    │   ├── InvalidToken          403  Hugging Face does not accept the token
    │   └── HashMismatch               a checksum mismatch
    ├── Unavailable               503  try again: something is loading, full or restarting
    │   ├── ModelNotLoaded
    │   ├── QueueFull
    │   ├── ShuttingDown               the server is stopping
    │   ├── EngineCrashed
    │   ├── InsufficientMemory
    │   ├── NotStored                  the disk is full or read-only
    │   └── SaeDetached                the SAE was detached to save memory
    ├── Timeout                   504  the request took longer than the server allows
    ├── EngineFailed              500  a step of the engine raised; the log has the trace
    │   └── NonFiniteOutput            the model's numbers overflowed
    └── CannotStart               (terminal) the command cannot run
        ├── PortTaken
        └── HomeLocked

A message is one line with the reason and the remedy, and never contains a server path, a token or a traceback
(paths may appear in the terminal, whose user owns them).
"""

from typing import ClassVar


class MillmError(Exception):
    """Base of all errors raised on purpose; `code` is part of the API and never changes."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    when: ClassVar[str] = "an unexpected failure; the log has the traceback"
    retry_after_seconds: int | None = None
    """Seconds after which a retry can help; None where it cannot."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(MillmError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"
    when = "a field has the wrong type or is out of range; `param` names it"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"
    when = "a field is known and not supported"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"
    when = "the prompt leaves no room in the model's context"


class InvalidSteering(InvalidRequest):
    code = "invalid_steering"
    when = "a feature, strength, unit, mode or SAE cannot be applied"


class InvalidProfile(InvalidRequest):
    code = "invalid_profile"
    when = "a profile file is not one, or does not fit what is attached"


class InvalidImport(InvalidRequest):
    code = "invalid_import"
    when = "a file is in none of the formats that profiles and labels come in"


class InvalidModel(InvalidRequest):
    code = "invalid_model"
    when = "a folder is not a model that can be loaded"


class ModelCannotGenerate(InvalidRequest):
    code = "model_cannot_generate"
    when = "generation was requested from a model that only embeds"


class RemoteCodeRefused(InvalidModel):
    code = "remote_code_refused"
    when = "a model can only be run by code of its own; `MILLM_TRUST_REMOTE_CODE` names those that may"


class InvalidSae(InvalidRequest):
    code = "invalid_sae"
    when = "an SAE cannot be read exactly"


class SaeMismatch(InvalidRequest):
    code = "sae_mismatch"
    when = "an SAE does not belong on this model, layer or hook point"


class SaeModelMismatch(SaeMismatch):
    code = "sae_model_mismatch"
    when = "an SAE was trained on another model than the one loaded; `allow_model_mismatch` attaches it all the same"


class AmbiguousLength(InvalidRequest):
    code = "ambiguous_length"
    when = "a request has both Content-Length and Transfer-Encoding; the connection is closed"


class EncodedBody(InvalidRequest):
    status = 415
    code = "unsupported_content_encoding"
    when = "the body is compressed; send it as it is"


class AddressNotAllowed(MillmError):
    status = 421
    type = "invalid_request_error"
    code = "host_not_allowed"
    when = "the `Host` of the request is no address of this server; `MILLM_ALLOWED_HOSTS` adds names"


class InvalidApiKey(MillmError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    when = "`MILLM_API_KEY` or `MILLM_ADMIN_KEY` is set, and the request has none of its keys"


class Forbidden(MillmError):
    status = 403
    type = "permission_error"
    code = "forbidden"
    when = "the client is not permitted to do this"


class OriginNotAllowed(Forbidden):
    code = "origin_not_allowed"
    when = "a web page of another site asks; `MILLM_ALLOWED_ORIGINS` adds sites"


class ScopeMissing(Forbidden):
    code = "insufficient_permissions"
    when = "the key is known and does not allow this; the admin key does"


class NotFound(MillmError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"
    when = "there is no such address"


class ModelNotFound(NotFound):
    code = "model_not_found"
    when = "no model of that name is served"


class SaeNotFound(NotFound):
    code = "sae_not_found"
    when = "no SAE of that name is in the library, or attached"


class JobNotFound(NotFound):
    code = "job_not_found"
    when = "there is no job of that id"


class RequestNotFound(NotFound):
    code = "request_not_found"
    when = "the history has no request of that id, or not any more"


class RepositoryNotFound(NotFound):
    code = "repository_not_found"
    when = "Hugging Face has no such repository, revision or folder, or it is private and the token does not open it"


class ProfileNotFound(NotFound):
    code = "profile_not_found"
    when = "there is no profile of that name"


class Conflict(MillmError):
    status = 409
    type = "invalid_request_error"
    code = "conflict"
    when = "it cannot be done as things are"


class InUse(Conflict):
    code = "in_use"
    when = "what would be deleted is loaded or attached"


class ProfileNameTaken(Conflict):
    code = "profile_name_taken"
    when = "another profile has that name"


class ProfileActive(Conflict):
    code = "profile_active"
    when = "the profile steers the server; turn it off first, or delete it with `force`"


class SteeringOutdated(Conflict):
    code = "steering_outdated"
    when = "the steering has another `version` than the change expects: another client has changed it"


class RequestCancelled(Conflict):
    code = "request_cancelled"
    when = "the request was ended on the server, by `POST /api/queue/{id}/cancel`"


class DoesNotFit(MillmError):
    status = 507
    code = "does_not_fit"
    when = "there is no room for it"


class ModelTooLarge(DoesNotFit):
    code = "model_too_large"
    when = "a model needs more memory than there is, by the estimate; `force` loads it all the same"


class InsufficientDisk(DoesNotFit):
    code = "insufficient_disk"
    when = "a download needs more room than the disk has free"


class DownloadFailed(MillmError):
    status = 502
    code = "download_failed"
    when = "something could not be fetched"


class GatedRepository(DownloadFailed):
    status = 403
    code = "gated_repository"
    when = "the repository's licence has to be accepted on its page first, or access waits to be granted"


class InvalidToken(DownloadFailed):
    status = 403
    code = "invalid_hf_token"
    when = "Hugging Face does not accept `HF_TOKEN`"


class HashMismatch(DownloadFailed):
    code = "hash_mismatch"
    when = "the checksum of a downloaded file does not match"


class Unavailable(MillmError):
    status = 503
    code = "unavailable"
    when = "try again later"
    retry_after_seconds: int | None = 2


class ModelNotLoaded(Unavailable):
    code = "model_not_loaded"
    when = "the model is being loaded or restored"


class QueueFull(Unavailable):
    code = "queue_full"
    when = "too many requests are waiting"

    def __init__(self, message: str, *, param: str | None = None, retry_after_seconds: int | None = None) -> None:
        super().__init__(message, param=param)
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds


class ShuttingDown(Unavailable):
    code = "shutting_down"
    when = "the server is stopping: new requests are rejected, and running ones are aborted after `MILLM_STOP_TIMEOUT`"
    retry_after_seconds = 10


class EngineCrashed(Unavailable):
    code = "engine_crashed"
    when = "the engine process stopped while the request ran; it is being restarted"


class InsufficientMemory(Unavailable):
    code = "insufficient_memory"
    when = "the device has no room for this now"


class NotStored(Unavailable):
    code = "not_stored"
    when = "MILLM_HOME cannot be written, so that it would not survive a restart: it was not done"
    retry_after_seconds = None


class SaeDetached(Unavailable):
    code = "sae_detached"
    when = "steering or activations need an SAE that was detached when the device ran out of memory"
    retry_after_seconds = None


class Timeout(MillmError):
    status = 504
    code = "timeout"
    when = "the request, waiting included, took longer than `MILLM_REQUEST_TIMEOUT`"


class EngineFailed(MillmError):
    code = "engine_failed"
    when = "a step of the engine failed; the log has the trace"


class NonFiniteOutput(EngineFailed):
    code = "non_finite_output"
    when = "the model's logits are not finite numbers; a steering that is too strong does that"


class CannotStart(MillmError):
    code = "cannot_start"
    when = "the command cannot run"


class PortTaken(CannotStart):
    code = "port_taken"
    when = "another program listens on the port"


class HomeLocked(CannotStart):
    code = "home_locked"
    when = "another server uses the same MILLM_HOME"


def _with_subclasses(root: type[MillmError]) -> list[type[MillmError]]:
    return [root, *(found for child in root.__subclasses__() for found in _with_subclasses(child))]


ERRORS_BY_CODE: dict[str, type[MillmError]] = {error.code: error for error in _with_subclasses(MillmError)}
"""For `error_from_code`: errors cross the process boundary as (code, message)."""


def error_from_code(code: str, message: str, param: str | None = None) -> MillmError:
    return ERRORS_BY_CODE.get(code, EngineFailed)(message, param=param)
