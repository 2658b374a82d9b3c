"""What a download would bring: sizes, licence, access, and what the model says of itself.

Runs in the process that asks the hub, and writes nothing to the disk.
"""

from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import GatedRepoError

from millm.hub.jobs import Preview, PreviewFile
from millm.hub.offered import Listing, RemoteFile, listing
from millm.hub.orders import Order
from millm.hub.refusals import page
from millm.hub.registry import count_for
from millm.hub.transfer import disk_free

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
           "F8_E5M2": "float8_e5m2", "I8": "int8", "U8": "uint8", "I32": "int32"}  # fmt: skip
"""safetensors' names → torch's."""
_LARGEST_CONFIG = 1 << 20


def preview(order: Order, token: str | None) -> Preview:
    """Raises what `listing` does."""
    listed = listing(order, token)
    has_access = not listed.info.gated or _may_read(listed, token)
    config = _config(listed, token) if has_access else {}
    config = config or (listed.info.config or {})
    files = tuple(
        PreviewFile(path=file.path, size=file.size, is_here=listed.is_here(file))
        for file in sorted(listed.wanted, key=lambda file: file.path)
    )
    return Preview(
        asked=order.asked,
        name=order.asked.name,
        commit=listed.commit,
        files=files,
        size=_sum(listed.wanted),
        to_download=listed.missing,
        skipped=_sum(listed.others),
        licence=_licence(listed),
        gated=bool(listed.info.gated),
        has_access=has_access,
        link=page(order.asked),
        disk_free=disk_free(),
        disk_reserve=order.reserve,
        **(_model_facts(listed, config) if order.asked.kind == "model" else {}),
    )


def _model_facts(listed: Listing, config: dict[str, Any]) -> dict[str, Any]:
    counts = listed.info.safetensors.parameters if listed.info.safetensors else {}
    main_type = max(counts, key=lambda name: counts[name], default=None)
    code = any(file.path.endswith(".py") for file in (*listed.wanted, *listed.others))
    return {
        "architecture": next(iter(config.get("architectures") or ()), None),
        "dtype": _DTYPES.get(main_type, main_type.lower()) if main_type else config.get("dtype"),
        "parameters": listed.info.safetensors.total if listed.info.safetensors else None,
        "quantization": _quantization(config.get("quantization_config") or {}),
        "needs_remote_code": code and "auto_map" in config,
        "known_saes": count_for(listed.repository),
    }


def _quantization(said: dict[str, Any]) -> str | None:
    """`gptq 4-bit`, `bitsandbytes 8-bit`, `fp8`."""
    bits = said.get("bits") or (4 if said.get("load_in_4bit") else 8 if said.get("load_in_8bit") else None)
    words = [str(said.get("quant_method") or ""), f"{bits}-bit" if bits else ""]
    return " ".join(word for word in words if word) or None


def _licence(listed: Listing) -> str | None:
    card = dict(vars(listed.info.card_data)) if listed.info.card_data else {}
    of_tags = (tag.removeprefix("license:") for tag in listed.info.tags or () if tag.startswith("license:"))
    named = card.get("license") or next(of_tags, None)
    return card.get("license_name") or named if named == "other" else named


def _may_read(listed: Listing, token: str | None) -> bool:
    try:
        get_hf_file_metadata(_url(listed, listed.wanted[0]), token=token or False)
    except GatedRepoError:
        return False
    return True


def _config(listed: Listing, token: str | None) -> dict[str, Any]:
    """The model's own; the hub's copy keeps a part of it only."""
    file = next((file for file in listed.wanted if file.path == "config.json"), None)
    if file is None or file.size > _LARGEST_CONFIG:
        return {}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = get_session().get(_url(listed, file), headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    hf_raise_for_status(answer)
    found = answer.json()
    return found if isinstance(found, dict) else {}


def _url(listed: Listing, file: RemoteFile) -> str:
    return hf_hub_url(listed.repository, file.path, revision=listed.commit)


def _sum(files: tuple[RemoteFile, ...]) -> int:
    return sum(file.size for file in files)
