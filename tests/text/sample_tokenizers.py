"""Tiny tokenizers of every kind we serve, built as the real ones are and trained on a few lines."""

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Once upon a time there was a model that could count: 1, 2, 3, 42, 1000.",
    "def add(a, b):\n    return a + b  # two numbers\n\n\nprint(add(1, 2))",
    "Ein Café in München, très bien, señor; добрый день, 你好世界, こんにちは, 안녕하세요.",
    "Family 👨‍👩‍👧 waves 👋🏽 and smiles 🙂🙂, naïve façade — “quoted” … end.",
    "User: hello there\nAssistant: hello, how are you today?\nUser: fine\nAssistant: good",
]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def write_zoo(folder: Path) -> None:
    for name, build in KINDS.items():
        (folder / name).mkdir()
        build(folder / name)


def _save(
    folder: Path, tokenizer: Tokenizer, settings: dict[str, object], config: dict[str, object] | None = None
) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _metaspace(special: list[str]) -> Tokenizer:
    """BPE over ▁ with byte fallback: special tokens first, then the 256 bytes, then the trained tokens."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    ascii_only = [line.encode("ascii", "ignore").decode() for line in TEXT]
    trainer = trainers.BpeTrainer(vocab_size=250, initial_alphabet=["é", "你"], show_progress=False)
    trained.train_from_iterator(ascii_only, trainer)
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {piece: id for id, piece in enumerate([*special, *BYTES, *pieces])}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def gpt2(folder: Path) -> None:
    """Says nothing about bos and eos: the model's configuration does. No bos before text."""
    tokenizer = _byte_level(["<|endoftext|>"])
    config = {"model_type": "gpt2", "bos_token_id": 0, "eos_token_id": 0}
    _save(folder, tokenizer, {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024}, config)


def llama3(folder: Path) -> None:
    """The post-processor writes the bos."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _byte_level(special)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing("<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]),
        ]
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "added_tokens_decoder": {
            str(id): {"content": token, "special": True, "normalized": False} for id, token in enumerate(special)
        },
    }
    _save(folder, tokenizer, settings)


def smollm2(folder: Path) -> None:
    """Has a bos that is never added to text, for any settings."""
    tokenizer = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "add_bos_token": True,
    }
    _save(folder, tokenizer, settings)


def gemma(folder: Path) -> None:
    """Spaces are ▁, unknown characters are bytes, nothing is put before a text but the bos."""
    tokenizer = _metaspace(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": {"__type": "AddedToken", "content": "<eos>", "special": True},
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    _save(folder, tokenizer, settings, {"model_type": "gemma2", "eos_token_id": [1, 6]})


def llama2(folder: Path) -> None:
    """As gemma, with a space added before the first word, which the decoder removes."""
    tokenizer = _metaspace(["<unk>", "<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    _save(folder, tokenizer, settings)
    names = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))


def unigram(folder: Path) -> None:
    """The older metaspace decoder, which also removes the space of the first word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    _save(folder, tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": None})


KINDS: dict[str, Callable[[Path], None]] = {
    build.__name__: build for build in (gpt2, llama3, smollm2, gemma, llama2, unigram)
}
BYTE_LEVEL = ("gpt2", "llama3", "smollm2")
LOSSLESS = (*BYTE_LEVEL, "gemma")
"""Kinds whose tokens' bytes, joined, are exactly the text that was encoded."""
