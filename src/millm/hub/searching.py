"""Models of Hugging Face's by words of their names, the most fetched first.

Runs in the process that asks the hub, and writes nothing to the disk.
"""

from huggingface_hub import HfApi
from huggingface_hub.hf_api import ModelInfo

from millm.hub.jobs import RemoteModel
from millm.hub.orders import Search
from millm.hub.registry import count_for


def search(order: Search, token: str | None) -> tuple[RemoteModel, ...]:
    """Only those with safetensors: nothing else is loaded. Raises what huggingface_hub does."""
    found = HfApi(token=token or False).list_models(
        search=order.words,
        filter="safetensors",
        sort="downloads",
        limit=order.limit,
        expand=["downloads", "gated", "likes", "safetensors"],
    )
    return tuple(_told(info) for info in found)


def _told(info: ModelInfo) -> RemoteModel:
    return RemoteModel(
        id=info.id,
        downloads=info.downloads or 0,
        likes=info.likes or 0,
        gated=bool(info.gated),
        parameters=info.safetensors.total if info.safetensors else None,
        known_saes=count_for(info.id),
    )
