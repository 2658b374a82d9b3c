"""Compare the name of the model that an SAE was trained on with the loaded model's; a mismatch is only a warning.

The check that decides is the width at the hook point.
"""

_ALIASES = {
    "distilgpt2": "gpt2-xs",
    "gpt2": "gpt2-small",
    "gpt-j-6b": "gpt-j",
    "gpt-neo-125m": "gpt-neo-small",
    "gpt-neo-1.3b": "gpt-neo-medium",
    "gpt-neox-20b": "gpt-neox",
    "gpt-oss-20b": "gpt-oss",
    "meta-llama-3-8b": "llama-3-8b",
    "meta-llama-3-8b-instruct": "llama-3-8b-instruct",
    "meta-llama-3.1-8b": "llama-3.1-8b",
    "meta-llama-3.1-8b-instruct": "llama-3.1-8b-instruct",
    "mistral-7b-v0.1": "mistral-7b",
    "mistral-7b-instruct-v0.1": "mistral-7b-instruct",
    "mixtral-8x7b-v0.1": "mixtral-8x7b",
    "olmo-2-0425-1b": "olmo-2-1b",
    "olmo-2-1124-7b": "olmo-2-7b",
    "opt-125m": "opt-small",
    "phi-3-mini-4k-instruct": "phi-3",
}
"""Last part of the Hugging Face id → TransformerLens' alias, if the two differ by more than case."""
_SAME_WEIGHTS = {"hf", "pt"}
_TUNINGS = {"it", "instruct", "chat", "base"}


def model_mismatch(sae_model: str | None, loaded_model: str) -> str | None:
    """A warning when an SAE's model is not the loaded model (mild if only the tuning differs), else None.

    Either name may be a Hugging Face id, its last part or a TransformerLens alias (`gpt2-small`, `gemma-2-2b`).
    """
    if not sae_model:
        return None
    trained, loaded = _name_parts(sae_model), _name_parts(loaded_model)
    if trained == loaded:
        return None
    if is_same_model(sae_model, loaded_model):
        return (
            f"this SAE was trained on {_base_name(sae_model)} and the loaded {_base_name(loaded_model)} is tuned "
            "differently: features usually carry over, strengths may need adjusting"
        )
    return (
        f"this SAE was trained on {_base_name(sae_model)}, not on the loaded {_base_name(loaded_model)}: "
        "its features may be meaningless here"
    )


def is_same_model(one: str, other: str) -> bool:
    """Whether two names stand for one model; base and tuned versions count as one."""
    return _without_tuning(_name_parts(one)) == _without_tuning(_name_parts(other))


def _base_name(name: str) -> str:
    """The name without its owner or the folders of a local path."""
    return name.rstrip("/").rpartition("/")[2]


def _name_parts(name: str) -> tuple[str, ...]:
    short = _base_name(name).lower()
    return tuple(word for word in _ALIASES.get(short, short).split("-") if word not in _SAME_WEIGHTS)


def _without_tuning(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in parts if word not in _TUNINGS)
