"""The tokenizer built from the GGUF file against the one that transformers builds from it."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from millm.demo.gguf import build_tokenizer, read_gguf
from millm.errors import InvalidModel

TEXTS = [
    "Hello world",
    "  two spaces\n\n\ttab \r\n",
    "The year 2024, 1234567.89 and 3 x 10",
    "Ünïcödé — “quotes” 日本語 Ελληνικά 🙂🏽",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "def f(x):\n    return x**2  # don't I'll we've",
    "<repo_name>x<reponame> <|im_sta rt|>",
    "\x00\x01\x7f",
    "",
    " ",
]
CHAT = [{"role": "user", "content": "Tell me about the sea."}]


def test_merges_and_control_tokens(tiny_gguf: Path) -> None:
    tokenizer = build_tokenizer(read_gguf(tiny_gguf).metadata)
    assert tokenizer.encode("<|im_start|>hello<|im_end|>").tokens == ["<|im_start|>", "hel", "l", "o", "<|im_end|>"]
    assert tokenizer.decode(tokenizer.encode("hello, Ünï").ids) == "hello, Ünï"


def test_other_tokenizers_are_rejected(tiny_gguf: Path) -> None:
    metadata = {**read_gguf(tiny_gguf).metadata, "tokenizer.ggml.model": "llama"}
    with pytest.raises(InvalidModel, match="'llama'"):
        build_tokenizer(metadata)


@pytest.fixture(scope="module")
def ours(demo_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(demo_folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def of_the_folder(demo_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(demo_folder)


@pytest.fixture(scope="module")
def of_the_gguf(demo_gguf: Path) -> Any:
    return AutoTokenizer.from_pretrained(demo_gguf.parent, gguf_file=demo_gguf.name)


@pytest.mark.demo
@pytest.mark.parametrize("text", TEXTS)
def test_ids_match_transformers(text: str, ours: Tokenizer, of_the_folder: Any, of_the_gguf: Any) -> None:
    ids = ours.encode(text).ids
    assert ids == of_the_gguf(text)["input_ids"] == of_the_folder(text)["input_ids"]
    assert ours.decode(ids, skip_special_tokens=False) == text


@pytest.mark.demo
def test_number_signs_are_separate_tokens(ours: Tokenizer, of_the_gguf: Any) -> None:
    """transformers' conversion omits the digit splitter, so that it merges a blank with the first byte of ½."""
    assert ours.encode("a ½").ids == [*ours.encode("a ").ids, *ours.encode("½").ids]
    assert of_the_gguf("a ½")["input_ids"] != ours.encode("a ½").ids


@pytest.mark.demo
def test_vocabulary_and_special_tokens(ours: Tokenizer, of_the_folder: Any) -> None:
    assert ours.get_vocab_size() == len(of_the_folder) == 49_152
    assert (ours.token_to_id("<|im_start|>"), ours.token_to_id("<|im_end|>")) == (1, 2)
    assert sorted(ours.get_added_tokens_decoder()) == list(range(17))
    assert (of_the_folder.bos_token_id, of_the_folder.eos_token_id, of_the_folder.pad_token_id) == (1, 2, 2)


@pytest.mark.demo
def test_chat_template_is_the_models_own(of_the_folder: Any) -> None:
    assert of_the_folder.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nTell me about the sea.<|im_end|>\n<|im_start|>assistant\n"
    )
