"""Text to token ids and back for one model; knows nothing about messages or templates.

On the `tokenizers` library alone: importing transformers would cost the API process seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import tokenizers

from millm.errors import ContextLengthExceeded, InvalidRequest
from millm.text.backend import open_backend, read_token_names, start_token_ids
from millm.text.control_tokens import ControlTokens
from millm.text.special_tokens import read_tokenizer_config
from millm.text.spelling import TokenByteDecoder, read_byte_decoder, read_byte_decoder_or_default


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
