"""What a download would bring: sizes, licence, access, and what the model says of itself.

Runs in the process that asks the hub, and writes nothing to the disk.
"""

from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import GatedRepoError

from millm.hub.jobs import DownloadPreview, PreviewFile
from millm.hub.offered import Listing, RemoteFile, list_repository
from millm.hub.orders import RepositoryCommand
from millm.hub.refusals import repository_url
from millm.hub.registry import count_saes
from millm.hub.transfer import disk_free

_TORCH_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
           "F8_E5M2": "float8_e5m2", "I8": "int8", "U8": "uint8", "I32": "int32"}  # fmt: skip
"""safetensors' names → torch's."""
_MAX_CONFIG_BYTES = 1 << 20


def build_preview(command: RepositoryCommand, token: str | None) -> DownloadPreview:
    """Raises what `listing` does."""
    listed = list_repository(command, token)
    has_access = not listed.info.gated or _has_read_access(listed, token)
    config = _fetch_config(listed, token) if has_access else {}
    config = config or (listed.info.config or {})
    files = tuple(
        PreviewFile(path=file.path, size=file.size, is_here=listed.is_cached(file))
        for file in sorted(listed.selected, key=lambda file: file.path)
    )
    return DownloadPreview(
        asked=command.spec,
        name=command.spec.name,
        commit=listed.commit,
        files=files,
        size=_sum_sizes(listed.selected),
        to_download=listed.missing_bytes,
        skipped=_sum_sizes(listed.others),
        licence=_licence(listed),
        gated=bool(listed.info.gated),
        has_access=has_access,
        link=repository_url(command.spec),
        disk_free=disk_free(),
        disk_reserve=command.disk_reserve,
        **(_model_facts(listed, config) if command.spec.kind == "model" else {}),
    )


def _model_facts(listed: Listing, config: dict[str, Any]) -> dict[str, Any]:
    counts = listed.info.safetensors.parameters if listed.info.safetensors else {}
    main_type = max(counts, key=lambda name: counts[name], default=None)
    code = any(file.path.endswith(".py") for file in (*listed.selected, *listed.others))
    return {
        "architecture": next(iter(config.get("architectures") or ()), None),
        "dtype": _TORCH_DTYPES.get(main_type, main_type.lower()) if main_type else config.get("dtype"),
        "parameters": listed.info.safetensors.total if listed.info.safetensors else None,
        "quantization": _quantization(config.get("quantization_config") or {}),
        "needs_remote_code": code and "auto_map" in config,
        "known_saes": count_saes(listed.repository),
    }


def _quantization(quantization_config: dict[str, Any]) -> str | None:
    """`gptq 4-bit`, `bitsandbytes 8-bit`, `fp8`."""
    bits = quantization_config.get("bits") or (
        4 if quantization_config.get("load_in_4bit") else 8 if quantization_config.get("load_in_8bit") else None
    )
    words = [str(quantization_config.get("quant_method") or ""), f"{bits}-bit" if bits else ""]
    return " ".join(word for word in words if word) or None


def _licence(listed: Listing) -> str | None:
    card = dict(vars(listed.info.card_data)) if listed.info.card_data else {}
    of_tags = (tag.removeprefix("license:") for tag in listed.info.tags or () if tag.startswith("license:"))
    named = card.get("license") or next(of_tags, None)
    return card.get("license_name") or named if named == "other" else named


def _has_read_access(listed: Listing, token: str | None) -> bool:
    try:
        get_hf_file_metadata(_url(listed, listed.selected[0]), token=token or False)
    except GatedRepoError:
        return False
    return True


def _fetch_config(listed: Listing, token: str | None) -> dict[str, Any]:
    """The model's own; the hub's copy keeps a part of it only."""
    file = next((file for file in listed.selected if file.path == "config.json"), None)
    if file is None or file.size > _MAX_CONFIG_BYTES:
        return {}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = get_session().get(_url(listed, file), headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    hf_raise_for_status(answer)
    found = answer.json()
    return found if isinstance(found, dict) else {}


def _url(listed: Listing, file: RemoteFile) -> str:
    return hf_hub_url(listed.repository, file.path, revision=listed.commit)


def _sum_sizes(files: tuple[RemoteFile, ...]) -> int:
    return sum(file.size for file in files)
