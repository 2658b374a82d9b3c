"""Sample tokenizers, opened by millm and by transformers."""

from pathlib import Path

import pytest
from llguidance import LLTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from millm.text.tokenizer import Tokenizer
from tests.text.sample_tokenizers import KINDS, write_zoo


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model folder (tokenizer only) per kind."""
    folder = tmp_path_factory.mktemp("zoo")
    write_zoo(folder)
    return folder


@pytest.fixture(scope="session")
def ours(zoo: Path) -> dict[str, Tokenizer]:
    return {kind: Tokenizer.from_folder(zoo / kind) for kind in KINDS}


@pytest.fixture(scope="session")
def theirs(zoo: Path) -> dict[str, PreTrainedTokenizerBase]:
    return {kind: AutoTokenizer.from_pretrained(zoo / kind) for kind in KINDS}


@pytest.fixture(scope="session")
def tokens(tiny_model: Path) -> LLTokenizer:
    """The tiny model's vocabulary, as grammars see it."""
    return LLTokenizer((tiny_model / "tokenizer.json").read_text("utf-8"), n_vocab=400, eos_token=2)
