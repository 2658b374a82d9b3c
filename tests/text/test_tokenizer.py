"""Text to ids and back, against transformers on every kind of tokenizer."""

import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from millm.errors import InvalidModel, InvalidRequest
from millm.text.tokenizer import Tokenizer
from tests.fixtures.encoders import write_encoder
from tests.text.sample_tokenizers import BYTE_LEVEL, KINDS, LOSSLESS, TEXT

Ours = dict[str, Tokenizer]
Theirs = dict[str, PreTrainedTokenizerBase]

LINES = [*TEXT, "", " ", "  two  spaces ", "\n", "👨‍👩‍👧", "مرحبا ᚠᛇᚻ", "<|im_start|>not <bos>a template</s>"]
FACTS = {  # kind: bos id, eos id, adds bos
    "gpt2": (0, 0, False),
    "llama3": (0, 4, True),
    "smollm2": (1, 2, False),
    "gemma": (2, 1, True),
    "llama2": (1, 2, True),
    "unigram": (None, 1, False),
}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(LINES)
any_ids = st.lists(st.integers(0, 520), max_size=40)


@pytest.mark.parametrize("kind", KINDS)
def test_token_facts_equal_transformers(ours: Ours, theirs: Theirs, kind: str) -> None:
    tokenizer, reference = ours[kind], theirs[kind]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == FACTS[kind]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (
        reference.bos_token_id,
        reference.eos_token_id,
        len(reference),
    )
    assert tokenizer.special_ids == {id for id, token in reference.added_tokens_decoder.items() if token.special}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", LINES)
def test_encodes_plain_text_as_transformers_does(ours: Ours, theirs: Theirs, kind: str, text: str) -> None:
    expected = theirs[kind](text)["input_ids"]
    if kind == "llama2":
        assert expected.pop() == ours[kind].eos_id  # its post-processor ends the text, which a prompt must not
    assert ours[kind].encode(text) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_bos_is_never_doubled(ours: Ours, kind: str) -> None:
    tokenizer = ours[kind]
    bos = tokenizer.token_names.get("bos_token", "")
    for encode in (tokenizer.encode, tokenizer.encode_prompt):
        assert encode("hello").count(tokenizer.bos_id) == tokenizer.adds_bos
        if tokenizer.adds_bos:
            assert encode(f"{bos}hello") == encode(f"{bos}{bos}hello")
            assert encode(f"{bos}hello").count(tokenizer.bos_id) == 1
            assert tokenizer.decode(encode(f"{bos}hello")) == "hello"


def test_a_template_may_write_a_bos_that_plain_text_lacks(ours: Ours) -> None:
    tokenizer = ours["smollm2"]
    assert tokenizer.encode_prompt("<|im_start|>user") == [tokenizer.bos_id, *tokenizer.encode("user")]


@given(kind=st.sampled_from(sorted(KINDS)), text=texts, skip=st.booleans())
def test_decodes_text_as_transformers_does(ours: Ours, theirs: Theirs, kind: str, text: str, skip: bool) -> None:
    ids = ours[kind].encode(text)
    assert ours[kind].decode(ids, skip) == theirs[kind].decode(ids, skip_special_tokens=skip)


@given(kind=st.sampled_from(sorted(KINDS)), ids=any_ids, skip=st.booleans())
def test_decodes_any_ids_as_transformers_does(
    ours: Ours, theirs: Theirs, kind: str, ids: list[int], skip: bool
) -> None:
    """Also ids without a token. Where bytes are no text, transformers also gives up their valid neighbours, but
    only for byte-fallback tokens.
    """
    text = ours[kind].decode(ids, skip)
    if kind in BYTE_LEVEL or "\ufffd" not in text:
        assert text == theirs[kind].decode(ids, skip_special_tokens=skip)


@given(kind=st.sampled_from(LOSSLESS), text=texts)
def test_the_bytes_of_the_tokens_are_the_text(ours: Ours, kind: str, text: str) -> None:
    tokenizer = ours[kind]
    spelled = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    assert spelled.decode() == tokenizer.decode(tokenizer.encode(text))
    if not any(token in text for token in ("<|im_start|>", "<bos>")):
        assert spelled.decode() == text


def test_a_split_character_has_exact_bytes_and_a_readable_text(ours: Ours) -> None:
    for kind in LOSSLESS:
        ids = ours[kind].encode("ᚠ")[-3:]
        assert [ours[kind].token_bytes(id) for id in ids] == [bytes([byte]) for byte in "ᚠ".encode()]
        assert {ours[kind].token_text(id) for id in ids} == {"\ufffd"}


def test_a_special_token_adds_no_bytes_but_can_be_named(ours: Ours) -> None:
    assert ours["smollm2"].token_bytes(2) == b""
    assert ours["smollm2"].token_text(2) == "<|im_end|>"
    assert ours["smollm2"].token_text(100_000) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_surrogate_is_rejected(ours: Ours, kind: str) -> None:
    for encode in (ours[kind].encode, ours[kind].encode_prompt):
        with pytest.raises(InvalidRequest, match=r"character 2 is the lone surrogate U\+D83D"):
            encode("ab\ud83dc")


@pytest.mark.parametrize("kind", [*LOSSLESS, "llama2"])
def test_a_marked_control_token_stays_text(ours: Ours, kind: str) -> None:
    tokenizer = ours[kind]
    name = tokenizer.token_names["eos_token"]
    marked = tokenizer.encode_prompt(f"say {tokenizer.control_tokens.mark(f'{name} twice {name}')}!{name}")
    assert marked.count(tokenizer.eos_id) == 1
    assert marked[-1] == tokenizer.eos_id
    assert tokenizer.decode(marked) == f"say {name} twice {name}!"


def test_an_unpaired_mark_is_dropped_and_joins_nothing(ours: Ours) -> None:
    tokenizer = ours["smollm2"]
    start, end = tokenizer.control_tokens.mark("<|im_end|>").split("<|im_end|>")
    ids = tokenizer.encode_prompt(f"<|im{start}_end|>{end} and{end}")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "<|im_end|> and"


def test_a_control_token_in_the_vocabulary_is_encoded_with_its_id(ours: Ours) -> None:
    tokenizer = ours["unigram"]
    ids = tokenizer.encode_prompt(tokenizer.control_tokens.mark("a</s>"))
    assert tokenizer.decode(ids, skip_special=False) == "a</s>"


@pytest.fixture
def folder(zoo: Path, tmp_path: Path) -> Path:
    """A model folder to spoil."""
    return Path(shutil.copytree(zoo / "smollm2", tmp_path / "model"))


def test_a_folder_without_a_tokenizer_is_rejected(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel, match=r"no tokenizer\.json; write one with transformers"):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize("damaged", ["", "{", "{}", '{"model": {"type": "Sorcery"}}', "\x00"])
def test_a_damaged_tokenizer_is_rejected(folder: Path, damaged: str) -> None:
    (folder / "tokenizer.json").write_text(damaged)
    with pytest.raises(InvalidModel, match=r"tokenizer\.json cannot be read") as refusal:
        Tokenizer.from_folder(folder)
    assert str(folder) not in refusal.value.message


@pytest.mark.parametrize("damaged", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_damaged_settings_are_rejected(folder: Path, damaged: bytes) -> None:
    (folder / "tokenizer_config.json").write_bytes(damaged)
    with pytest.raises(InvalidModel, match=r"tokenizer_config\.json is not a JSON object"):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize(
    ("decoder", "named"),
    [
        (decoders.WordPiece(), "'WordPiece'"),
        (decoders.Sequence([decoders.Strip(" ", 1, 0), decoders.Fuse()]), "'Strip'"),
        (decoders.Sequence([decoders.Replace("a", "b"), decoders.Fuse()]), "'Replace'"),
        (None, "no decoder"),
    ],
)
def test_an_unsupported_decoder_is_rejected(folder: Path, decoder: decoders.Decoder | None, named: str) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.decoder = decoder  # type: ignore[assignment]
    backend.save(str(folder / "tokenizer.json"))
    with pytest.raises(InvalidModel, match=named):
        Tokenizer.from_folder(folder)


def test_a_declared_token_that_the_vocabulary_lacks_gets_no_id(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    size = Tokenizer.from_folder(folder).vocab_size
    for extra in (["<|new|>", "o"], {"new_token": "<|new|>", "old_token": "o"}):
        changed = settings | {"eos_token": "<|new|>", "extra_special_tokens": extra}
        (folder / "tokenizer_config.json").write_text(json.dumps(changed))
        tokenizer = Tokenizer.from_folder(folder)
        assert (tokenizer.vocab_size, tokenizer.eos_id) == (size, None)
        assert {tokenizer.token_text(id) for id in tokenizer.special_ids} == {
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "o",
        }


def test_a_token_declared_ordinary_stays_ordinary(folder: Path) -> None:
    settings = {"added_tokens_decoder": {"83": {"content": "o", "special": False}}}
    before = Tokenizer.from_folder(folder).special_ids
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert Tokenizer.from_folder(folder).special_ids == before


def test_an_eos_from_the_configuration_alone_is_ordinary_text(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    bang = Tokenizer.from_folder(folder).encode("!")[0]
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [bang, 2], "time_step_limit": [0, math.inf]}))
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.eos_id == bang
    assert tokenizer.decode(tokenizer.encode("stop!")) == "stop!"


def test_stored_truncation_and_padding_are_disabled(folder: Path) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    before = Tokenizer.from_folder(folder).encode(TEXT[0])
    backend.save(str(folder / "tokenizer.json"))
    assert Tokenizer.from_folder(folder).encode(TEXT[0]) == before


# ---------------------------------------------------------------------------------------- models that do not write


def test_an_unsupported_decoder_is_accepted_for_embedding_models(tmp_path: Path) -> None:
    """Texts are encoded as by transformers, with `[CLS]` and `[SEP]` and without truncation."""
    folder = write_encoder(tmp_path / "encoder")
    with pytest.raises(InvalidModel, match="WordPiece"):
        Tokenizer.from_folder(folder)
    tokenizer = Tokenizer.from_folder(folder, is_generative=False)
    text = "The Sea is WIDE and the ships are small, one two three four five"
    ids = tokenizer.encode_with_special_tokens(text)
    assert ids == PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))(text)["input_ids"]
    assert len(ids) > 8
    assert [tokenizer.token_text(id) for id in (ids[0], ids[-1])] == ["[CLS]", "[SEP]"]
