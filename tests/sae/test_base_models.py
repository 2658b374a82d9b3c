"""Which names mean one model, which another tuning of it and which another model."""

import pytest

from millm.sae.base_models import model_mismatch


@pytest.mark.parametrize(
    ("sae_model", "loaded"),
    [
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("gpt2-small", "openai-community/gpt2"),
        ("gpt2-small", "gpt2"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-8B"),
        ("Llama-2-7b", "meta-llama/Llama-2-7b-hf"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("google/gemma-3-1b-pt", "/srv/models/gemma-3-1b-pt/"),
        (None, "gpt2"),
        ("", "gpt2"),
    ],
)
def test_aliases_of_one_model_match(sae_model: str | None, loaded: str) -> None:
    assert model_mismatch(sae_model, loaded) is None


@pytest.mark.parametrize(
    ("sae_model", "loaded"),
    [
        ("gemma-2-2b", "google/gemma-2-2b-it"),
        ("google/gemma-3-1b-pt", "google/gemma-3-1b-it"),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.1"),
        ("Qwen/Qwen3-8B-Base", "Qwen/Qwen3-8B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"),
        ("Llama-2-7b", "meta-llama/Llama-2-7b-chat-hf"),
    ],
)
def test_another_tuning_of_the_same_model_is_a_mild_warning(sae_model: str, loaded: str) -> None:
    warning = model_mismatch(sae_model, loaded)
    assert warning is not None
    assert "usually carry over" in warning


@pytest.mark.parametrize(
    ("sae_model", "loaded"),
    [
        ("gemma-2-2b", "google/gemma-2-9b"),
        ("gemma-2-2b", "google/gemma-2b"),
        ("gpt2-small", "openai-community/gpt2-medium"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.3"),
    ],
)
def test_another_model_is_a_warning(sae_model: str, loaded: str) -> None:
    warning = model_mismatch(sae_model, loaded)
    assert warning is not None
    assert "may be meaningless" in warning


def test_a_warning_names_no_folder() -> None:
    warning = model_mismatch("/home/someone/runs/gemma-2-2b", "/srv/models/gpt2")
    assert warning is not None
    assert "/" not in warning
