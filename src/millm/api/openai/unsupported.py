"""Rejects known but unsupported fields by name, instead of silently ignoring them."""

from typing import Any

import structlog

from millm.errors import InvalidRequest, UnsupportedParameter
from millm.protocol.request import ChatRequest, CompletionRequest, GenerationFields

log = structlog.get_logger()
UNSUPPORTED_CHAT_FIELDS: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "chat_template": (),
    "echo": (False,),
    "skip_special_tokens": (True,),
}
"""Field → values without effect, which are accepted."""
IGNORED_CHAT_FIELDS = (
    "documents", "include_reasoning", "metadata", "moderation", "prediction", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user",
    "verbosity", "web_search_options",
)  # fmt: skip
"""Known fields without effect here. Unknown fields are accepted as well."""
UNSUPPORTED_COMPLETION_FIELDS: dict[str, tuple[Any, ...]] = {"suffix": ("",)}


def check_chat(body: ChatRequest) -> None:
    """Raises UnsupportedParameter or InvalidRequest, naming the field."""
    _check_fields(body, UNSUPPORTED_CHAT_FIELDS)
    if set(body.modalities) - {"text"}:
        raise UnsupportedParameter('`modalities`: only ["text"] is supported.', param="modalities")
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
    if body.continue_final_message:
        _check_continuation(body)


def check_completion(body: CompletionRequest) -> None:
    """Raises UnsupportedParameter or InvalidRequest, naming the field."""
    _check_fields(body, UNSUPPORTED_COMPLETION_FIELDS)
    if body.best_of is None:
        return
    if body.best_of < body.n:
        raise InvalidRequest("`best_of` should be at least `n`.", param="best_of")
    if body.stream:
        raise InvalidRequest("`best_of` cannot be streamed: the best is known only at the end.", param="best_of")


def _check_fields(body: GenerationFields, unsupported: dict[str, tuple[Any, ...]]) -> None:
    extra = body.model_extra or {}
    for name, neutral in unsupported.items():
        if name in extra and extra[name] not in neutral:
            raise UnsupportedParameter(f"`{name}` is not supported; leave it out.", param=name)
    if ignored := sorted(set(extra) - set(unsupported)):
        log.debug("request.fields_ignored", fields=[name[:64] for name in ignored[:32]])


def _check_continuation(body: ChatRequest) -> None:
    if body.add_generation_prompt:
        raise InvalidRequest(
            "`continue_final_message` and `add_generation_prompt` cannot both be true.", param="continue_final_message"
        )
    if body.messages[-1].role != "assistant":
        raise InvalidRequest(
            "`continue_final_message` needs a last message with the role 'assistant'.", param="continue_final_message"
        )
