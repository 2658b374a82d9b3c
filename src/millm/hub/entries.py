"""Library entries as the API reports them: public ids and figures, never a path (NFR-4.3)."""

import re
from typing import Literal

import msgspec

IntegrityState = Literal["whole", "incomplete", "damaged"]
"""`incomplete`: files are missing (an interrupted download); `damaged`: a file has another size, or cannot be read."""
Origin = Literal["hub", "imported", "builtin"]
"""Hugging Face's cache (of any program), a folder that the user linked into the library, or part of the package."""


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the library."""

    id: str
    """The name in the API and in commands: `owner/name`, `owner/name@revision`, or an imported folder's name."""
    origin: Origin
    state: IntegrityState
    problem: str | None = None
    """None unless incomplete or damaged."""
    is_verified: bool = False
    """Every file's hash was compared with the hub's after the download."""
    commit: str | None = None
    size: int
    """Bytes of the entry's own files."""
    shared: int = 0
    """Bytes of these that other entries use too: a deletion does not free them."""
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
    """An SAE in the library."""

    id: str
    """`owner/name/path/inside`, with `@revision` where it is not `main`, or an imported folder's name."""
    origin: Origin
    state: IntegrityState
    problem: str | None = None
    is_verified: bool = False
    commit: str | None = None
    size: int
    format: str | None = None
    """`gemma_scope`, `gemma_scope_2`, `saelens`, `mistudio`, or another one that has to be converted first."""
    architecture: str | None = None
    width: int | None = None
    """Features."""
    d_in: int | None = None
    hook_point: str | None = None
    layer: int | None = None
    model: str | None = None
    """The model that the SAE was trained on, by its files or the catalogue."""
    neuronpedia: str | None = None
    """A link to Neuronpedia's page, where the catalogue has its id."""
    is_attached: bool = False


class DeletionResult(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes that a deletion freed."""

    id: str
    bytes: int
    kept: int = 0
    """Bytes that stay, because other entries share them."""


_PARAMETER_COUNT = re.compile(r"(?<![a-zA-Z\d.])(\d+(?:\.\d+)?)([bm])\b", re.IGNORECASE)
_GPT2_PARAMETERS = 124e6
"""Parameters; the name does not state them."""
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
    """`owner/name` unchanged; for a known short name its id, else None."""
    return name if name.count("/") == 1 else _HUGGING_FACE_IDS.get(name)


def parameters_from_name(model: str) -> float | None:
    """The size in a model's name: `google/gemma-2-2b` → 2e9."""
    if model == "openai-community/gpt2":
        return _GPT2_PARAMETERS
    match = _PARAMETER_COUNT.search(model)
    return float(match[1]) * (1e9 if match[2].lower() == "b" else 1e6) if match else None
