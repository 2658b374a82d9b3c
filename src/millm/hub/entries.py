"""What is on disk, for whoever asks: public ids and figures, never a path (NFR-4.3).

What a model's name says: the Hugging Face id behind a short one, and how large the model is. Never guessed.
"""

import re
from typing import Literal

import msgspec

IntegrityState = Literal["whole", "incomplete", "damaged"]
"""`incomplete`: files are missing (a download that was interrupted); `damaged`: one is not what it should be."""
Origin = Literal["hub", "imported", "builtin"]
"""Hugging Face's cache, whoever filled it; a folder the user linked into the library; what ships with miLLM."""


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the library."""

    id: str
    """What clients and commands call it: `owner/name`, `owner/name@revision`, or an imported folder's name."""
    origin: Origin
    state: IntegrityState
    problem: str | None = None
    """What is wrong with it, if something is."""
    is_verified: bool = False
    """Every file's hash was compared with the hub's after the download."""
    commit: str | None = None
    size: int
    """Bytes of its own files."""
    shared: int = 0
    """Of these, bytes that other entries use too: deleting it does not free them."""
    architecture: str | None = None
    model_type: str | None = None
    parameters: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    generates: bool = True
    needs_remote_code: bool = False
    is_loaded: bool = False
    last_used: float | None = None
    """Seconds since 1970."""


class SaeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An SAE of the library."""

    id: str
    """`owner/name/path/inside`, with `@revision` where it is not `main`, or an imported folder's name."""
    origin: Origin
    state: IntegrityState
    problem: str | None = None
    is_verified: bool = False
    commit: str | None = None
    size: int
    format: str | None = None
    """`gemma_scope`, `gemma_scope_2`, `saelens`, `mistudio`, or another that has to be converted first."""
    architecture: str | None = None
    width: int | None = None
    """Features."""
    d_in: int | None = None
    hook_point: str | None = None
    layer: int | None = None
    model: str | None = None
    """The model it was trained on, as its files or the registry say."""
    neuronpedia: str | None = None
    """A link to its page, only where the registry has its id."""
    is_attached: bool = False


class DeletionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a deletion gave back."""

    id: str
    bytes: int
    kept: int = 0
    """Bytes that stay, because other entries share them."""


_PARAMETER_COUNT = re.compile(r"(?<![a-zA-Z\d.])(\d+(?:\.\d+)?)([bm])\b", re.IGNORECASE)
_GPT2_PARAMETERS = 124e6
"""Parameters; its name does not say them."""
_HUGGING_FACE_IDS = {
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2-27b": "google/gemma-2-27b",
    "gpt2-small": "openai-community/gpt2",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
}


def hugging_face_id(name: str) -> str | None:
    """`owner/name` as it is; of a short name the id that it is known to mean, else None."""
    return name if name.count("/") == 1 else _HUGGING_FACE_IDS.get(name)


def parameters_from_name(model: str) -> float | None:
    """How large a model is by its name: `google/gemma-2-2b` → 2e9."""
    if model == "openai-community/gpt2":
        return _GPT2_PARAMETERS
    found = _PARAMETER_COUNT.search(model)
    return float(found[1]) * (1e9 if found[2].lower() == "b" else 1e6) if found else None
