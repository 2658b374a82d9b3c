"""What a model's name says: the Hugging Face id behind a short one, and how large the model is. Never guessed."""

import re

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
