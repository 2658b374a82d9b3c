"""Reference activations by a plain hook on transformers, and a completion request."""

from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import LlamaForCausalLM

from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from tests.fixtures.tiny import HOOK_LAYER

TOKENS = 6
MONITORED = {"sae": "tiny", "features": [40, 3], "top_k": 2, "tokens": "all", "sample_every": 1}


def complete(
    api: httpx.Client, prompt: list[int], headers: dict[str, str] | None = None, **body: Any
) -> httpx.Response:
    requested = {"model": "tiny-llama", "prompt": prompt, "temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
    return api.post("/v1/completions", json={**requested, **body}, headers=headers)


class Hooked:
    """Activations by transformers and the SAE alone."""

    def __init__(self, model: Path, sae: Path, folder: Path) -> None:
        self._model = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.sae = SparseAutoencoder.open(canonicalise(sae, folder))

    def activations(self, prompt: list[int]) -> list[list[float]]:
        """Of the prompt and the greedy answer  # [tokens, features]"""
        observed: list[torch.Tensor] = []
        handle = self._model.model.layers[HOOK_LAYER].register_forward_hook(lambda _m, _a, out: observed.append(out))
        ids = list(prompt)
        with torch.inference_mode():
            for _ in range(TOKENS):
                ids.append(int(self._model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        handle.remove()
        encoded: list[list[float]] = self.sae.encode(observed[-1][0]).tolist()
        return encoded

    @torch.inference_mode()
    def hidden(self, ids: list[int]) -> torch.Tensor:
        """Output of the hooked layer  # [T, d]"""
        hidden: torch.Tensor = self._model(torch.tensor([ids]), output_hidden_states=True).hidden_states[HOOK_LAYER + 1]
        return hidden[0]
