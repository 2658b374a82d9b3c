"""Models of Hugging Face's by words of their names, the most fetched first.

Runs in the process that asks the hub, and writes nothing to the disk.
"""

import msgspec
from huggingface_hub import constants, get_session, hf_raise_for_status

from millm.hub.jobs import RemoteModel
from millm.hub.orders import ModelSearchCommand
from millm.hub.registry import count_saes

_TIMEOUT_SECONDS = 10


class _SafetensorsInfo(msgspec.Struct):
    total: int | None = None


class _ModelHit(msgspec.Struct):
    """Of `GET /api/models`, what is asked for by `expand`."""

    id: str
    downloads: int | None = None
    likes: int | None = None
    gated: bool | str | None = None
    safetensors: _SafetensorsInfo | None = None


def search_models(command: ModelSearchCommand, token: str | None) -> tuple[RemoteModel, ...]:
    """Only those with safetensors: nothing else is loaded. Raises what huggingface_hub does.

    Asked once: `HfApi.list_models` tries again for 23 s, and somebody waits who can press Enter again.
    """
    answer = get_session().get(
        f"{constants.ENDPOINT}/api/models",
        params={
            "search": command.words,
            "filter": "safetensors",
            "sort": "downloads",
            "limit": command.limit,
            "expand": ["downloads", "gated", "likes", "safetensors"],
        },
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=_TIMEOUT_SECONDS,
    )
    hf_raise_for_status(answer)
    return tuple(
        _to_remote_model(entry) for entry in msgspec.json.decode(answer.content, type=list[_ModelHit])[: command.limit]
    )


def _to_remote_model(entry: _ModelHit) -> RemoteModel:
    return RemoteModel(
        id=entry.id,
        downloads=entry.downloads or 0,
        likes=entry.likes or 0,
        gated=bool(entry.gated),
        parameters=entry.safetensors.total if entry.safetensors else None,
        known_saes=count_saes(entry.id),
    )
