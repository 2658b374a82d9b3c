"""Encode text as token ids and decode it, for one model, on the `tokenizers` library.

transformers is not imported: that would cost the API process seconds.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import msgspec
import tokenizers
from tokenizers import AddedToken

from millm.errors import ContextLengthExceeded, InvalidModel, InvalidRequest
from millm.text.model_folder import configured_token_id, declared_special_tokens, named_tokens, read_tokenizer_config

_MARK_START, _MARK_END = "\U000f0000", "\U000f0001"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class ControlTokens:
    """The control tokens of one model, which must stay ordinary text where a client wrote them.

    Two private-use characters mark each occurrence before the template is rendered and are removed while the prompt is
    encoded, as in transformers' `sanitize_control_tokens`. An unpaired mark is dropped.
    """

    _name_pattern: re.Pattern[str]
    _mark_pattern: re.Pattern[str]

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Self:
        longest_first = sorted(names, key=len, reverse=True)
        any_name = "|".join(map(re.escape, longest_first)) or "(?!)"
        return cls(re.compile(any_name), re.compile(f"{_MARK_START}({any_name}){_MARK_END}|[{_MARK_START}{_MARK_END}]"))

    def mark(self, text: str) -> str:
        return self._name_pattern.sub(f"{_MARK_START}\\g<0>{_MARK_END}", text)

    def mark_all(self, value: object) -> Any:
        """A JSON value with all strings in it marked."""
        if isinstance(value, str):
            return self.mark(value)
        if isinstance(value, dict):
            return {self.mark(name): self.mark_all(child) for name, child in value.items()}
        return [self.mark_all(child) for child in value] if isinstance(value, list) else value

    def split(self, marked: str) -> list[tuple[str, bool]]:
        """The text in pieces without marks, each with True for a control token that was marked."""
        pieces = self._mark_pattern.split(marked)  # text, control token or None, text, control token or None, …, text
        return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]


def _build_byte_alphabet() -> dict[str, int]:
    """The 256 letters that stand for bytes in byte-level BPE (openai/gpt-2, `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    moved = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | moved


_BYTE_ALPHABET = _build_byte_alphabet()


@dataclass(frozen=True)
class TokenByteDecoder:
    """The bytes that a token stands for, as the tokenizer's own decoder defines them.

    Decoding is local in bytes: the text of a sequence is the bytes of its tokens, joined and read as UTF-8, so a stream
    decodes every token once. (The library's `DecodeStream` compares texts, and raises "Invalid prefix" on byte-fallback
    tokens that are not valid UTF-8 together.)
    """

    byte_level: bool = False  # each letter of a token is one byte (GPT-2, Llama-3, Qwen, SmolLM2)
    byte_fallback: bool = False  # `<0xE2>` is one byte (Llama-2, Gemma)
    space: str = ""  # the letter that stands for a space, usually ▁
    fused: bool = False  # the tokens are joined, so that later steps apply to the complete text
    leading_spaces: int = 0  # spaces dropped at the very start of a text

    def token_to_bytes(self, token: str) -> bytes:
        text = token.replace(self.space, " ") if self.space else token
        if self.byte_fallback and (byte := _BYTE_TOKEN.fullmatch(text)):
            return bytes.fromhex(byte[1])
        if self.byte_level and all(letter in _BYTE_ALPHABET for letter in text):
            return bytes(_BYTE_ALPHABET[letter] for letter in text)
        return text.encode()

    def trim_leading_spaces(self, data: bytes) -> bytes:
        """The bytes of a complete text without the leading spaces that the decoder drops."""
        spaces = len(data) - len(data.lstrip(b" "))
        return data[min(spaces, self.leading_spaces) :]


def read_byte_decoder(decoder: tokenizers.decoders.Decoder | None) -> TokenByteDecoder:
    """Raises InvalidModel, naming the step, for a decoder that is not supported exactly."""
    if decoder is None:
        raise InvalidModel("the model's tokenizer.json has no decoder, so its tokens cannot be turned into text")
    byte_decoder = TokenByteDecoder()
    for step in _decoder_steps(msgspec.json.decode(decoder.__getstate__(), type=dict[str, object])):
        byte_decoder = _apply_decoder_step(byte_decoder, step)
    return byte_decoder


def read_byte_decoder_or_default(decoder: tokenizers.decoders.Decoder | None) -> TokenByteDecoder:
    """For display: the vocabulary's own letters when the decoder is not supported."""
    try:
        return read_byte_decoder(decoder)
    except InvalidModel:
        return TokenByteDecoder()


def _decoder_steps(decoder: Mapping[str, object]) -> list[Mapping[str, object]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    nested = msgspec.convert(decoder["decoders"], list[dict[str, object]])
    return [step for child in nested for step in _decoder_steps(child)]


def _apply_decoder_step(byte_decoder: TokenByteDecoder, step: Mapping[str, object]) -> TokenByteDecoder:
    match step:
        case {"type": "ByteLevel"}:
            return replace(byte_decoder, byte_level=True, fused=True)
        case {"type": "ByteFallback"}:
            return replace(byte_decoder, byte_fallback=True)
        case {"type": "Fuse"}:
            return replace(byte_decoder, fused=True)
        case {"type": "Replace", "pattern": {"String": str(letter)}, "content": " "}:
            return replace(byte_decoder, space=letter)
        case {"type": "Metaspace", "replacement": str(letter), "prepend_scheme": scheme}:
            return replace(byte_decoder, space=letter, leading_spaces=0 if scheme == "never" else 1)
        case {"type": "Strip", "content": " ", "start": int(start), "stop": 0} if byte_decoder.fused:
            return replace(byte_decoder, leading_spaces=start)
    raise InvalidModel(
        f"the model's tokenizer.json has the decoder step {step['type']!r}, which is not supported; "
        "byte-level, byte-fallback and metaspace tokenizers are"
    )


@dataclass(frozen=True)
class Tokenizer:
    """One model's tokenizer; immutable, so safe to share between threads."""

    vocab_size: int
    """Tokens in the vocabulary; the model's embedding may have more rows, which have no text."""
    bos_id: int | None
    eos_id: int | None
    special_ids: frozenset[int]  # ids that decode to no text
    longest_token_length: int
    """Letters of the longest token, an upper bound for the characters of a token."""
    token_names: Mapping[str, str]
    """`bos_token`, `eos_token`, …: what chat templates call these tokens."""
    control_tokens: ControlTokens
    byte_decoder: TokenByteDecoder
    _start_ids: tuple[int, ...]  # see `start_token_ids`
    _backend: tokenizers.Tokenizer = field(repr=False)

    @classmethod
    def from_folder(cls, folder: Path, *, is_generative: bool = True) -> Self:
        """Raises InvalidModel when tokenizer.json is missing or not supported exactly.

        Any decoder is accepted for a model that does not generate, whose ids are decoded for display only.
        """
        settings = read_tokenizer_config(folder)
        backend = open_backend(folder, settings)
        names = read_token_names(backend, folder, settings)
        bos_id, eos_id = (backend.token_to_id(names.get(name, "")) for name in ("bos_token", "eos_token"))
        special = {token.content: id for id, token in backend.get_added_tokens_decoder().items() if token.special}
        return cls(
            vocab_size=backend.get_vocab_size(),
            bos_id=bos_id,
            eos_id=eos_id,
            special_ids=frozenset(special.values()),
            longest_token_length=max(map(len, backend.get_vocab()), default=0),
            token_names=names,
            control_tokens=ControlTokens.from_names(special),
            byte_decoder=read_byte_decoder(backend.decoder)
            if is_generative
            else read_byte_decoder_or_default(backend.decoder),
            _start_ids=start_token_ids(backend),
            _backend=backend,
        )

    @property
    def adds_bos(self) -> bool:
        """True when plain text starts with a bos token, as in transformers."""
        return self.bos_id in self._start_ids

    def can_fit(self, text: str, max_tokens: int) -> bool:
        """False when so many characters cannot be so few tokens, without tokenising.

        True for vocabularies in which an unknown stretch of text may become one token.
        """
        is_exact = self.byte_decoder.byte_level or self.byte_decoder.byte_fallback
        return not is_exact or len(text) <= max_tokens * self.longest_token_length

    def check_length(self, text: str, max_tokens: int) -> None:
        """Raises ContextLengthExceeded when `can_fit` is false."""
        if not self.can_fit(text, max_tokens):
            raise ContextLengthExceeded(
                f"This model's maximum context length is {max_tokens} tokens, and the request has {len(text)} "
                "characters, which are more; shorten it so that there is room for an answer."
            )

    def special_ids_in(self, text: str) -> frozenset[int]:
        """Ids of the special tokens that occur in a text."""
        named = ((id, self.token_text(id)) for id in self.special_ids)
        return frozenset(id for id, name in named if name and name in text)

    def encode(self, text: str) -> list[int]:
        """Plain text, with control tokens recognised, after exactly one bos when the model uses one.

        Raises InvalidRequest for text that is not Unicode (a lone surrogate).
        """
        return self._with_start_ids(self._encode_plain(text))

    def encode_with_special_tokens(self, text: str) -> list[int]:
        """As transformers' `tokenizer(text)`, with the tokens before and after a text, such as `[CLS]` and `[SEP]`.
        Raises InvalidRequest as `encode` does.
        """
        _check_unicode(text)
        return self._backend.encode(text).ids

    def encode_prompt(self, text: str) -> list[int]:
        """A rendered chat template: its control tokens become ids, but those that `control_tokens.mark` marked
        stay text. Exactly one bos when the model uses one, whether or not the template wrote it.
        """
        ids: list[int] = []
        for piece, is_literal in self.control_tokens.split(text):
            ids += self._encode_continuation(piece, is_literal) if ids or is_literal else self._encode_plain(piece)
        return self._with_start_ids(ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of a complete sequence; invalid UTF-8 becomes U+FFFD."""
        to_bytes = self.token_bytes if skip_special else self._raw_bytes
        return self.byte_decoder.trim_leading_spaces(b"".join(map(to_bytes, ids))).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token adds to the text: none for special tokens and ids without a token."""
        return b"" if id in self.special_ids else self._raw_bytes(id)

    def prompt_token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of a prompt's tokens as written: special tokens by name, none for the start tokens."""
        start = len(self._start_ids) if tuple(ids[: len(self._start_ids)]) == self._start_ids else 0
        return [b""] * start + [self._raw_bytes(id) for id in ids[start:]]

    def token_text(self, id: int) -> str:
        """The token for display: U+FFFD for a partial character, the name of a special token."""
        return self._raw_bytes(id).decode(errors="replace")

    def _raw_bytes(self, id: int) -> bytes:
        return self.byte_decoder.token_to_bytes(self._backend.id_to_token(id) or "")

    def _with_start_ids(self, ids: list[int]) -> list[int]:
        start = list(self._start_ids)
        while start and ids[: len(start)] == start:
            ids = ids[len(start) :]
        return start + ids

    def _encode_plain(self, text: str) -> list[int]:
        _check_unicode(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def _encode_continuation(self, piece: str, is_literal: bool) -> list[int]:
        """The ids of a piece from the middle of a text, encoded after a newline, because some tokenizers put a space
        before the first piece; the newline's own ids are removed.
        """
        encode = self._encode_literal if is_literal else self._encode_plain
        newline, ids = encode("\n"), encode("\n" + piece)
        return ids[len(newline) :] if ids[: len(newline)] == newline else encode(piece)

    def _encode_literal(self, text: str) -> list[int]:
        """The ids without recognising control tokens. (A unigram vocabulary may still hold one as a word.)"""
        normalizer, splitter = self._backend.normalizer, self._backend.pre_tokenizer
        plain = normalizer.normalize_str(text) if normalizer else text
        words = [word for word, _ in splitter.pre_tokenize_str(plain)] if splitter else [plain]
        return [token.id for word in words for token in self._backend.model.tokenize(word)]


def open_backend(folder: Path, settings: dict[str, object]) -> tokenizers.Tokenizer:
    """The library's tokenizer with all declared special tokens, without truncation or padding. Raises InvalidModel."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InvalidModel(
            "the model has no tokenizer.json; write one with transformers: "
            "AutoTokenizer.from_pretrained(model).save_pretrained(folder)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library's edge: it raises nothing more specific
        raise InvalidModel("the model's tokenizer.json cannot be read; download that file again") from error
    backend.no_truncation()
    backend.no_padding()
    _declare_special(backend, settings)
    return backend


def _declare_special(backend: tokenizers.Tokenizer, settings: dict[str, object]) -> None:
    """Mark known tokens as special; none is added, because the model has no embedding for it."""
    known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for token in declared_special_tokens(settings):
        if token not in known and backend.token_to_id(token) is not None:
            backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])


def read_token_names(backend: tokenizers.Tokenizer, folder: Path, settings: dict[str, object]) -> dict[str, str]:
    """`bos_token`, `eos_token`, … → the token. When the tokenizer's files do not name bos or eos (GPT-2), their ids
    in the model's configuration do.
    """
    names = named_tokens(settings)
    for name in {"bos_token", "eos_token"} - names.keys():
        id = configured_token_id(folder, f"{name}_id")
        names[name] = None if id is None else backend.id_to_token(id)
    return {name: token for name, token in names.items() if token is not None}


def start_token_ids(backend: tokenizers.Tokenizer) -> tuple[int, ...]:
    """The ids that the post-processor puts before a text, usually the bos id or none. (`add_bos_token` in
    tokenizer_config.json has no effect next to a tokenizer.json; transformers 5 ignores it as well.)
    """
    plain, complete = backend.encode("a", add_special_tokens=False).ids, backend.encode("a").ids
    added = next((n for n in range(len(complete)) if complete[n : n + len(plain)] == plain), 0)
    return tuple(complete[:added])


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the text is not valid Unicode: character {error.start} is the lone surrogate "
            f"U+{ord(text[error.start]):04X}; send whole characters"
        ) from error
