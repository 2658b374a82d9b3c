"""Plain transformers, the baseline of a server: greedy `generate` in fp32, one prompt after another."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM


@dataclass(frozen=True)
class Written:
    """So many tokens in so much time."""

    tokens: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.tokens / self.seconds

    def __add__(self, other: "Written") -> "Written":
        return Written(self.tokens + other.tokens, self.seconds + other.seconds)


class Generate:
    """The model in this process, with as many threads as there are cores, as miLLM has by default."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def write(self, prompts: Sequence[str], tokens: int) -> Written:
        """An answer of up to `tokens` tokens to each."""
        started = time.perf_counter()
        written = sum(self._answer(prompt, tokens) for prompt in prompts)
        return Written(written, time.perf_counter() - started)

    def _answer(self, prompt: str, tokens: int) -> int:
        """Tokens written."""
        ids = self._ids(prompt)  # [1, T]
        with torch.no_grad():
            output = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens
            )  # [1, T + answer]
        return int(output.shape[1] - ids.shape[1])

    def _ids(self, prompt: str) -> Tensor:
        message = {"role": "user", "content": prompt}
        text = self._tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        return torch.tensor([self._tokenizer.encode(str(text), add_special_tokens=False)])
