"""The tokenizer inside a GGUF file as the files Hugging Face libraries read; a byte-level BPE, nothing else.

llama.cpp's pre-tokenizer `smollm` stands for: digits one by one, then GPT-2's byte level, as in
https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/main/tokenizer.json
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from millm.errors import InvalidModel

_CONTROL_TOKEN_TYPE = 3
"""llama.cpp's token type for tokens with a meaning to the model rather than a text."""


def write_tokenizer(metadata: dict[str, Any], folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and, where the file has one, chat_template.jinja."""
    build_tokenizer(metadata).save(str(folder / "tokenizer.json"))
    _write_text(folder / "tokenizer_config.json", json.dumps(_tokenizer_config(metadata), indent=2) + "\n")
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        _write_text(folder / "chat_template.jinja", template)


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a GGUF's metadata. Raises InvalidModel for any kind but SmolLM's byte-level BPE."""
    kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise InvalidModel(f"the GGUF file's tokenizer is {kind}; only ('gpt2', 'smollm') can be read")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in control if kind == _CONTROL_TOKEN_TYPE]
    )
    return tokenizer


def _tokenizer_config(metadata: dict[str, Any]) -> dict[str, Any]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[metadata["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
    }


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
