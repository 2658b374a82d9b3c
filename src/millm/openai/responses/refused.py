"""What `/v1/responses` knows and does not do, because this server keeps nothing between requests."""

from typing import Any

from millm.errors import UnsupportedParameter
from millm.openai.responses.request import ResponsesRequest

STATELESS_HINT = "this server keeps no responses; send the whole conversation as `input`."

UNSUPPORTED_FIELDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "previous_response_id": (("",), STATELESS_HINT),
    "conversation": ((), STATELESS_HINT),
    "background": ((False,), "this server answers while it is asked; leave it out, or use `stream`."),
    "prompt": ((), "this server keeps no prompts; send `instructions` and `input`."),
}
"""Field → the values that ask for nothing, and the way out."""


def check_unsupported(body: ResponsesRequest) -> None:
    """Raises UnsupportedParameter, naming the field."""
    sent = body.model_extra or {}
    for name, (neutral, way_out) in UNSUPPORTED_FIELDS.items():
        if name in sent and sent[name] not in neutral:
            raise UnsupportedParameter(f"`{name}` is not supported: {way_out}", param=name)
