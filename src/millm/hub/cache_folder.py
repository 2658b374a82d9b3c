"""Where Hugging Face's cache is, found as `huggingface_hub` finds it, without importing that."""

import os
from pathlib import Path


def hf_cache_folder() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return Path(_expand_path(folder))
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(_expand_path(os.environ.get("HF_HOME") or f"{caches}/huggingface")) / "hub"


def _expand_path(folder: str) -> str:
    return os.path.expanduser(os.path.expandvars(folder))
