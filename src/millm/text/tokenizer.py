"""Text to token ids and back for one model; knows nothing about messages or templates.

On the `tokenizers` library alone: importing transformers would cost the API process seconds.

The small JSON files of a model folder, read whole or refused by name; knows nothing about what is in them.

Which tokens a model folder declares special, and what it calls them; reads it as transformers does.

Opens a model folder's tokenizer.json with the `tokenizers` library, or refuses it by name.

Keeps a model's control tokens out of what people write: `<|im_end|>` in a message stays ordinary text.

Two private-use characters mark each occurrence before the template is rendered and go while it is encoded,
as transformers does (`sanitize_control_tokens`). A mark that lost its partner in the template is dropped.

Which bytes a token stands for, read off the tokenizer's own decoder; knows nothing about ids or prompts.

Working in bytes makes decoding local: the text of a sequence is its tokens' bytes, joined and read as UTF-8. So a
stream never has to decode a token twice, and it equals decoding everything at once. (The library's `DecodeStream`
compares texts instead, and raises "Invalid prefix" on byte-fallback tokens that are not valid UTF-8 together.)
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import msgspec
import tokenizers
from tokenizers import AddedToken

from millm.errors import ContextLengthExceeded, InvalidModel, InvalidRequest


def read_json(folder: Path, name: str) -> dict[str, object]:
    """The object in `folder/name`, {} when there is no such file. Raises InvalidModel when it is not an object.

    Python's own reader: configurations hold `Infinity`, which strict JSON has not.
    """
    path = folder / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidModel(f"the model's {name} is not a JSON object; download that file again")
    return value


def read_tokenizer_config(folder: Path) -> dict[str, object]:
    """tokenizer_config.json, completed as transformers does by the older special_tokens_map.json."""
    settings = read_json(folder, "tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        return settings
    return settings | read_json(folder, "special_tokens_map.json")


def named_tokens(settings: dict[str, object]) -> dict[str, str | None]:
    """`bos_token`, `eos_token`, … and what they are; None where the folder says that there is none."""
    return {
        name: _token_content(value)
        for name, value in settings.items()
        if name.endswith("_token") and (value is None or _token_content(value) is not None)
    }


def declared_special_tokens(settings: dict[str, object]) -> Iterator[str]:
    """Every token declared special outside tokenizer.json (where most models declare them)."""
    yield from filter(None, named_tokens(settings).values())
    for key in ("additional_special_tokens", "extra_special_tokens"):
        extra = settings.get(key)
        values = extra.values() if isinstance(extra, dict) else extra if isinstance(extra, list) else ()
        yield from filter(None, map(_token_content, values))
    added = settings.get("added_tokens_decoder")
    for token in added.values() if isinstance(added, dict) else ():
        if isinstance(token, dict) and token.get("special") and (content := _token_content(token)):
            yield content


def configured_token_id(folder: Path, name: str) -> int | None:
    """`bos_token_id` or `eos_token_id` of the model's configuration: the first, where it lists several."""
    for file in ("generation_config.json", "config.json"):
        value = read_json(folder, file).get(name)
        first = value[0] if isinstance(value, list) and value else value
        if type(first) is int and first >= 0:
            return first
    return None


def _token_content(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def open_backend(folder: Path, settings: dict[str, object]) -> tokenizers.Tokenizer:
    """The library's tokenizer with every declared special token special, and no truncation or padding."""
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
    """Marks tokens, but adds none: the model has no row for new ones."""
    known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for token in declared_special_tokens(settings):
        if token not in known and backend.token_to_id(token) is not None:
            backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])


def read_token_names(backend: tokenizers.Tokenizer, folder: Path, settings: dict[str, object]) -> dict[str, str]:
    """`bos_token`, `eos_token`, … → the token. Where the tokenizer's files are silent (GPT-2), the model's
    configuration says what bos and eos are.
    """
    names = named_tokens(settings)
    for name in {"bos_token", "eos_token"} - names.keys():
        id = configured_token_id(folder, f"{name}_id")
        names[name] = None if id is None else backend.id_to_token(id)
    return {name: token for name, token in names.items() if token is not None}


def start_token_ids(backend: tokenizers.Tokenizer) -> tuple[int, ...]:
    """The ids that the post-processor puts before a text, usually the bos id or nothing. (`add_bos_token` in
    tokenizer_config.json changes nothing next to a tokenizer.json; transformers 5 drops it as well.)
    """
    plain, whole = backend.encode("a", add_special_tokens=False).ids, backend.encode("a").ids
    added = next((n for n in range(len(whole)) if whole[n : n + len(plain)] == plain), 0)
    return tuple(whole[:added])


_MARK_START, _MARK_END = "\U000f0000", "\U000f0001"


@dataclass(frozen=True)
class ControlTokens:
    """The strings that have a meaning of their own for one model."""

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
        """A value as JSON has them, with every text in it marked."""
        if isinstance(value, str):
            return self.mark(value)
        if isinstance(value, dict):
            return {self.mark(name): self.mark_all(child) for name, child in value.items()}
        return [self.mark_all(child) for child in value] if isinstance(value, list) else value

    def split(self, marked: str) -> list[tuple[str, bool]]:
        """The pieces of a marked text without its marks, each with True where it was a marked control token."""
        pieces = self._mark_pattern.split(marked)  # text, control token or None, text, control token or None, …, text
        return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]


_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _build_byte_alphabet() -> dict[str, int]:
    """The 256 letters that byte-level BPE writes bytes with (openai/gpt-2, `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    moved = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | moved


_BYTE_ALPHABET = _build_byte_alphabet()


@dataclass(frozen=True)
class TokenByteDecoder:
    """How a vocabulary writes text."""

    byte_level: bool = False
    """Every letter of a token is one byte (GPT-2, Llama-3, Qwen, SmolLM2)."""
    byte_fallback: bool = False
    """`<0xE2>` is that byte (Llama-2, Gemma)."""
    space: str = ""
    """The letter that stands for a space, usually ▁."""
    fused: bool = False
    """The tokens have become one string, so that what follows works on the whole text."""
    leading_spaces: int = 0
    """Spaces dropped at the very start of a text."""

    def token_to_bytes(self, token: str) -> bytes:
        text = token.replace(self.space, " ") if self.space else token
        if self.byte_fallback and (byte := _BYTE_TOKEN.fullmatch(text)):
            return bytes.fromhex(byte[1])
        if self.byte_level and all(letter in _BYTE_ALPHABET for letter in text):
            return bytes(_BYTE_ALPHABET[letter] for letter in text)
        return text.encode()

    def trim_leading_spaces(self, data: bytes) -> bytes:
        """The bytes of a whole text without the leading spaces that the decoder drops."""
        spaces = len(data) - len(data.lstrip(b" "))
        return data[min(spaces, self.leading_spaces) :]


def read_byte_decoder(decoder: tokenizers.decoders.Decoder | None) -> TokenByteDecoder:
    """Raises InvalidModel, naming the step, for a decoder whose bytes we cannot tell exactly."""
    if decoder is None:
        raise InvalidModel("the model's tokenizer.json has no decoder, so its tokens cannot be turned into text")
    spelling = TokenByteDecoder()
    for step in _decoder_steps(msgspec.json.decode(decoder.__getstate__(), type=dict[str, object])):
        spelling = _apply_decoder_step(spelling, step)
    return spelling


def read_byte_decoder_or_default(decoder: tokenizers.decoders.Decoder | None) -> TokenByteDecoder:
    """For people to read: the vocabulary's own letters where the decoder's bytes cannot be told."""
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
        f"the model's tokenizer.json decodes with the step {step['type']!r} as we cannot; "
        "byte-level, byte-fallback and metaspace tokenizers work"
    )


@dataclass(frozen=True)
class Tokenizer:
    """One model's tokenizer. Safe to share between threads: nothing in it changes."""

    vocab_size: int
    """Tokens the tokenizer knows; the model's embedding may have more rows, which stand for no text."""
    bos_id: int | None
    eos_id: int | None
    special_ids: frozenset[int]
    """Ids that yield no text."""
    longest_token_length: int
    """Letters of the longest token: no token stands for more characters."""
    token_names: Mapping[str, str]
    """`bos_token`, `eos_token`, …: what chat templates call these tokens."""
    control_tokens: ControlTokens
    byte_decoder: TokenByteDecoder
    _start_ids: tuple[int, ...]
    """What transformers puts before plain text, usually the bos id or nothing."""
    _backend: tokenizers.Tokenizer = field(repr=False)

    @classmethod
    def from_folder(cls, folder: Path, *, is_generative: bool = True) -> Self:
        """Raises InvalidModel when the folder has no tokenizer.json, or one that cannot be read exactly.

        A model that does not write needs no ids as text: then any decoder will do.
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
        """True when plain text is given a bos token, as transformers would."""
        return self.bos_id in self._start_ids

    def can_fit(self, text: str, max_tokens: int) -> bool:
        """False when so many characters cannot be so few tokens, which is known long before it is tokenised.

        Where an unknown stretch of text may become one token, nothing is known.
        """
        is_exact = self.byte_decoder.byte_level or self.byte_decoder.byte_fallback
        return not is_exact or len(text) <= max_tokens * self.longest_token_length

    def check_length(self, text: str, max_tokens: int) -> None:
        """Raises ContextLengthExceeded where it cannot fit."""
        if not self.can_fit(text, max_tokens):
            raise ContextLengthExceeded(
                f"This model's maximum context length is {max_tokens} tokens, and the request has {len(text)} characters, "
                "which are more; shorten it so that there is room for an answer."
            )

    def special_ids_in(self, text: str) -> frozenset[int]:
        """Ids of the special tokens that a text mentions."""
        named = ((id, self.token_text(id)) for id in self.special_ids)
        return frozenset(id for id, name in named if name and name in text)

    def encode(self, text: str) -> list[int]:
        """Plain text, control tokens in it included, with exactly one bos when the model wants one.

        Raises InvalidRequest for text that is not Unicode (a lone surrogate).
        """
        return self._with_start_ids(self._encode_plain(text))

    def encode_with_special_tokens(self, text: str) -> list[int]:
        """With all that the model wants before and after a text, `[CLS]` and `[SEP]` say: as transformers' own
        `tokenizer(text)`. Raises InvalidRequest as `encode` does.
        """
        _check_unicode(text)
        return self._backend.encode(text).ids

    def encode_prompt(self, text: str) -> list[int]:
        """A rendered chat template: its control tokens become their ids, but those that `control.mark` has
        marked stay text. Exactly one bos when the model wants one, whether or not the template wrote it.
        """
        ids: list[int] = []
        for piece, is_literal in self.control_tokens.split(text):
            ids += self._encode_continuation(piece, is_literal) if ids or is_literal else self._encode_plain(piece)
        return self._with_start_ids(ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of a whole sequence; bytes that are no UTF-8 become U+FFFD."""
        spell = self.token_bytes if skip_special else self._raw_bytes
        return self.byte_decoder.trim_leading_spaces(b"".join(map(spell, ids))).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes this token adds to the text: none for special tokens and ids without a token."""
        return b"" if id in self.special_ids else self._raw_bytes(id)

    def prompt_token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of a prompt's tokens as somebody wrote them: special tokens by their names, nothing for those
        that stand before every text.
        """
        start = len(self._start_ids) if tuple(ids[: len(self._start_ids)]) == self._start_ids else 0
        return [b""] * start + [self._raw_bytes(id) for id in ids[start:]]

    def token_text(self, id: int) -> str:
        """The token for people to read: U+FFFD for a part of a character, its name for a special token."""
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
        """The ids of a piece from the middle of a text. After a newline, because some tokenizers put a space
        before whatever comes first; the newline's own ids are taken off again.
        """
        encode = self._encode_literal if is_literal else self._encode_plain
        newline, ids = encode("\n"), encode("\n" + piece)
        return ids[len(newline) :] if ids[: len(newline)] == newline else encode(piece)

    def _encode_literal(self, text: str) -> list[int]:
        """Text through the whole pipeline but the one step that finds control tokens. (A vocabulary that has one
        of them among its words as well, as unigram ones may, still gives its id.)
        """
        normalizer, splitter = self._backend.normalizer, self._backend.pre_tokenizer
        plain = normalizer.normalize_str(text) if normalizer else text
        words = [word for word, _ in splitter.pre_tokenize_str(plain)] if splitter else [plain]
        return [token.id for word in words for token in self._backend.model.tokenize(word)]


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the text is not valid Unicode: character {error.start} is the lone surrogate "
            f"U+{ord(text[error.start]):04X}; send whole characters"
        ) from error
