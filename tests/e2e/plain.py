"""Answers of plain transformers, with or without a vector added after a layer: the oracle of the tests."""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForCausalLM, AutoTokenizer

Messages = list[dict[str, str]]


class Plain:
    """A model in a folder, with greedy answers of limited length."""

    def __init__(self, folder: Path, tokens: int) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokens = tokens

    def generated(self, messages: Messages) -> str:
        """By transformers' own `generate`."""
        prompt = self._ids(messages)
        with torch.inference_mode():
            output = self._model.generate(torch.tensor([prompt]), max_new_tokens=self._tokens, do_sample=False)
        return self._text(output[0, len(prompt) :].tolist())

    def steered(self, messages: Messages, layer: int, delta: Tensor) -> str:
        """With `delta` added after `layer` at all positions but the first, recomputed for every token."""
        prompt = self._ids(messages)
        ids, end = list(prompt), self._model.generation_config.eos_token_id
        with self._adding(layer, delta), torch.inference_mode():
            while len(ids) < len(prompt) + self._tokens and ids[-1] != end:
                ids.append(int(self._model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        return self._text(ids[len(prompt) :])

    def _adding(self, layer: int, delta: Tensor) -> RemovableHandle:
        def add(_module: object, _given: object, out: Tensor) -> Tensor:
            return out + delta * (torch.arange(out.shape[1]) > 0)[:, None]

        return self._model.model.layers[layer].register_forward_hook(add)

    def _ids(self, messages: Messages) -> list[int]:
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
