"""What we know and do not do is refused by name: an answer that silently lacks what was asked for is worse."""

from typing import Any

import structlog

from millm.errors import InvalidRequest, UnsupportedParameter
from millm.openai.schemas.chat import ChatRequest
from millm.openai.schemas.common import GenerationFields
from millm.openai.schemas.completions import CompletionRequest

log = structlog.get_logger()

CHAT_REFUSED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
}
"""Field → the values that ask for nothing."""

COMPLETION_REFUSED: dict[str, tuple[Any, ...]] = {"suffix": ("",)}


def check_chat(body: ChatRequest) -> None:
    """Raises UnsupportedParameter or InvalidRequest, naming the field."""
    _refuse(body, CHAT_REFUSED)
    _check_tool_choice(body)
    if set(body.modalities) - {"text"}:
        raise UnsupportedParameter('`modalities`: only ["text"] can be answered.', param="modalities")
    if body.response_format.type != "text":
        raise UnsupportedParameter(
            f"`response_format` of type '{body.response_format.type}' is not supported; ask for JSON in the prompt.",
            param="response_format",
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")


def check_completion(body: CompletionRequest) -> None:
    """Raises UnsupportedParameter or InvalidRequest, naming the field."""
    _refuse(body, COMPLETION_REFUSED)
    if body.best_of is None:
        return
    if body.best_of < body.n:
        raise InvalidRequest("`best_of` should be at least `n`.", param="best_of")
    if body.stream:
        raise InvalidRequest("`best_of` cannot be streamed: the best is known at the end.", param="best_of")


def _refuse(body: GenerationFields, refused: dict[str, tuple[Any, ...]]) -> None:
    unknown = body.model_extra or {}
    for name, neutral in refused.items():
        if name in unknown and unknown[name] not in neutral:
            raise UnsupportedParameter(f"`{name}` is not supported; leave it out.", param=name)
    if ignored := sorted(set(unknown) - set(refused)):
        log.debug("request.fields_ignored", fields=[name[:64] for name in ignored[:32]])


def _check_tool_choice(body: ChatRequest) -> None:
    if body.tool_choice in ("auto", "none"):
        if body.tools:
            log.debug("request.tools_ignored", tools=len(body.tools))
        return
    if body.tool_choice == "required" or isinstance(body.tool_choice, dict):
        raise UnsupportedParameter(
            "`tool_choice` can be 'auto' or 'none': this server cannot force a call.", param="tool_choice"
        )
    raise InvalidRequest("`tool_choice` should be 'auto' or 'none'.", param="tool_choice")
