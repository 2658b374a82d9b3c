"""Steered generation with SAELens and TransformerLens; runs in an environment of its own, knows nothing of miLLM.

stdin: {"model", "sae", "hook", "feature", "strength", "prompts", "tokens", "threads"} as JSON. stdout, last line:
{"tokens", "seconds"}.
"""

import json
import sys
import time
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    bridge = TransformerBridge.boot_transformers(job["model"], hf_model=model, tokenizer=tokenizer, device="cpu")
    delta: Tensor = job["strength"] * SAE.load_from_disk(job["sae"], device="cpu").W_dec[job["feature"]]  # [d_model]

    def steer(residual: Tensor, hook: Any) -> Tensor:  # noqa: ARG001  TransformerLens' signature
        return residual + delta  # [B, T, d_model]

    with torch.no_grad(), bridge.hooks(fwd_hooks=[(job["hook"], steer)]):
        answer(bridge, tokenizer, job["prompts"][0], 4)  # warm
        started = time.perf_counter()
        tokens = sum(answer(bridge, tokenizer, prompt, job["tokens"]) for prompt in job["prompts"])
        seconds = time.perf_counter() - started
    print(json.dumps({"tokens": tokens, "seconds": seconds}))


def answer(bridge: Any, tokenizer: Any, prompt: str, tokens: int) -> int:
    """Tokens written: greedy, with the key-value cache."""
    message = {"role": "user", "content": prompt}
    text = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])  # [1, T]
    output = bridge.generate(ids, max_new_tokens=tokens, do_sample=False, verbose=False, return_type="tokens")
    return int(output.shape[1] - ids.shape[1])


if __name__ == "__main__":
    main()
