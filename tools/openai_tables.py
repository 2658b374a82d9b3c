"""Every field of OpenAI's requests and its support here, from OpenAI's published types and from ours."""

import json
from typing import Any

from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from pydantic import BaseModel

from millm.api.openai.responses.request import UNSUPPORTED_FIELDS as RESPONSES_REFUSED
from millm.api.openai.responses.request import ResponsesRequest
from millm.api.openai.unsupported import IGNORED_CHAT_FIELDS, UNSUPPORTED_CHAT_FIELDS, UNSUPPORTED_COMPLETION_FIELDS
from millm.protocol.request import ChatRequest, CompletionRequest, EmbeddingRequest
from tools.field_tables import table

Neutral = dict[str, tuple[Any, ...]]

LEAD = """How miLLM handles every field that OpenAI publishes, and which fields it adds.

| status | means |
| --- | --- |
| supported | works as OpenAI documents it; types, ranges and meanings are in [the API](../api.md) |
| refused | 400 `unsupported_parameter` with the field's name: the answer would be incomplete without it |
| ignored | accepted without effect, because it does not change the text of an answer; logged at level `debug` |
| added | miLLM's own, or other servers'; clients may omit it |

Unknown fields are ignored too. `null` counts as omitted, except `"steering": null`, which selects the base model.
Tested clients: [compatibility](../compatibility.md).

| address | |
| --- | --- |
| `GET /v1/models`, `GET /v1/models/{model}` | supported; profiles are models too, as `model:profile` |
| `POST /v1/chat/completions`, `POST /v1/completions`, `POST /v1/responses` | supported, streamed as well |
| `POST /v1/embeddings` | supported |
| anything else (files, images, audio, fine-tuning, batches, assistants, vector stores) | 404 `not_found` |
"""

_ENDPOINTS: tuple[tuple[str, type[BaseModel], Any, Neutral], ...] = (
    ("POST /v1/chat/completions", ChatRequest, chat_create_params.CompletionCreateParamsBase, UNSUPPORTED_CHAT_FIELDS),
    (
        "POST /v1/completions", CompletionRequest, completion_create_params.CompletionCreateParamsBase,
        UNSUPPORTED_COMPLETION_FIELDS,
    ),
    (
        "POST /v1/responses", ResponsesRequest, response_create_params.ResponseCreateParamsBase,
        {name: neutral for name, (neutral, _) in RESPONSES_REFUSED.items()},
    ),
    ("POST /v1/embeddings", EmbeddingRequest, embedding_create_params.EmbeddingCreateParams, {}),
)  # fmt: skip


def body() -> str:
    return LEAD + "".join(
        f"\n## {title}\n\n{table(('field', 'status', 'except'), rows(ours, theirs, refused))}"
        for title, ours, theirs, refused in _ENDPOINTS
    )


def rows(ours: type[BaseModel], theirs: Any, refused: Neutral) -> list[tuple[str, ...]]:
    """OpenAI's fields in the order of their names, then those that are added."""
    published = {*theirs.__annotations__, *(("stream",) if "stream" in ours.model_fields else ())}
    others = {*refused, *(IGNORED_CHAT_FIELDS if ours is ChatRequest else ())} - published
    added = [name for name in ours.model_fields if name not in published]
    return [
        *((f"`{name}`", _status(name, ours, refused), _but(name, refused)) for name in sorted(published)),
        *((f"`{name}`", "added", "") for name in added),
        *(
            (f"`{name}`, of other servers", _status(name, ours, refused), _but(name, refused))
            for name in sorted(others)
        ),
    ]


def _status(name: str, ours: type[BaseModel], refused: Neutral) -> str:
    if name in ours.model_fields:
        return "supported"
    return "refused" if name in refused else "ignored"


def _but(name: str, refused: Neutral) -> str:
    """The neutral values, which are accepted."""
    return ", ".join(f"`{json.dumps(value)}`" for value in refused.get(name, ()))
