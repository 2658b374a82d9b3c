"""Text to token ids and back for one model; knows nothing about messages or templates.

On the `tokenizers` library alone: importing transformers would cost the API process seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import tokenizers

from millm.errors import ContextLengthExceeded, InvalidRequest
from millm.text.backend import open_backend, start_of_text, token_names
from millm.text.control_tokens import ControlTokens
from millm.text.special_tokens import tokenizer_settings
from millm.text.spelling import Spelling, names_at_least, spelling_of


@dataclass(frozen=True)
class Tokenizer:
    """One model's tokenizer. Safe to share between threads: nothing in it changes."""

    vocab_size: int
    """Tokens the tokenizer knows; the model's embedding may have more rows, which stand for no text."""
    bos_id: int | None
    eos_id: int | None
    special_ids: frozenset[int]
    """Ids that yield no text."""
    longest_token: int
    """Letters of the longest token: no token stands for more characters."""
    token_names: Mapping[str, str]
    """`bos_token`, `eos_token`, …: what chat templates call these tokens."""
    control: ControlTokens
    spelling: Spelling
    _start: tuple[int, ...]
    """What transformers puts before plain text, usually the bos id or nothing."""
    _backend: tokenizers.Tokenizer = field(repr=False)

    @classmethod
    def from_folder(cls, folder: Path, *, writes: bool = True) -> Self:
        """Raises InvalidModel when the folder has no tokenizer.json, or one that cannot be read exactly.

        A model that does not write needs no ids as text: then any decoder will do.
        """
        settings = tokenizer_settings(folder)
        backend = open_backend(folder, settings)
        names = token_names(backend, folder, settings)
        bos_id, eos_id = (backend.token_to_id(names.get(name, "")) for name in ("bos_token", "eos_token"))
        special = {token.content: id for id, token in backend.get_added_tokens_decoder().items() if token.special}
        return cls(
            vocab_size=backend.get_vocab_size(),
            bos_id=bos_id,
            eos_id=eos_id,
            special_ids=frozenset(special.values()),
            longest_token=max(map(len, backend.get_vocab()), default=0),
            token_names=names,
            control=ControlTokens.named(special),
            spelling=spelling_of(backend.decoder) if writes else names_at_least(backend.decoder),
            _start=start_of_text(backend),
            _backend=backend,
        )

    @property
    def adds_bos(self) -> bool:
        """True when plain text is given a bos token, as transformers would."""
        return self.bos_id in self._start

    def may_fit(self, text: str, most: int) -> bool:
        """False when so many characters cannot be so few tokens, which is known long before it is tokenised.

        Where an unknown stretch of text may become one token, nothing is known.
        """
        is_exact = self.spelling.byte_level or self.spelling.byte_fallback
        return not is_exact or len(text) <= most * self.longest_token

    def check_length(self, text: str, most: int) -> None:
        """Raises ContextLengthExceeded where it cannot fit."""
        if not self.may_fit(text, most):
            raise ContextLengthExceeded(
                f"This model's maximum context length is {most} tokens, and the request has {len(text)} characters, "
                "which are more; shorten it so that there is room for an answer."
            )

    def special_in(self, text: str) -> frozenset[int]:
        """Ids of the special tokens that a text mentions."""
        named = ((id, self.token_text(id)) for id in self.special_ids)
        return frozenset(id for id, name in named if name and name in text)

    def encode(self, text: str) -> list[int]:
        """Plain text, control tokens in it included, with exactly one bos when the model wants one.

        Raises InvalidRequest for text that is not Unicode (a lone surrogate).
        """
        return self._started(self._ids(text))

    def encode_whole(self, text: str) -> list[int]:
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
        for piece, is_literal in self.control.split(text):
            ids += self._continued(piece, is_literal) if ids or is_literal else self._ids(piece)
        return self._started(ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of a whole sequence; bytes that are no UTF-8 become U+FFFD."""
        spell = self.token_bytes if skip_special else self._bytes
        return self.spelling.trim(b"".join(map(spell, ids))).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes this token adds to the text: none for special tokens and ids without a token."""
        return b"" if id in self.special_ids else self._bytes(id)

    def spelled(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of a prompt's tokens as somebody wrote them: special tokens by their names, nothing for those
        that stand before every text.
        """
        start = len(self._start) if tuple(ids[: len(self._start)]) == self._start else 0
        return [b""] * start + [self._bytes(id) for id in ids[start:]]

    def token_text(self, id: int) -> str:
        """The token for people to read: U+FFFD for a part of a character, its name for a special token."""
        return self._bytes(id).decode(errors="replace")

    def _bytes(self, id: int) -> bytes:
        return self.spelling.bytes_of(self._backend.id_to_token(id) or "")

    def _started(self, ids: list[int]) -> list[int]:
        start = list(self._start)
        while start and ids[: len(start)] == start:
            ids = ids[len(start) :]
        return start + ids

    def _ids(self, text: str) -> list[int]:
        _check_unicode(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def _continued(self, piece: str, is_literal: bool) -> list[int]:
        """The ids of a piece from the middle of a text. After a newline, because some tokenizers put a space
        before whatever comes first; the newline's own ids are taken off again.
        """
        encode = self._literal_ids if is_literal else self._ids
        newline, ids = encode("\n"), encode("\n" + piece)
        return ids[len(newline) :] if ids[: len(newline)] == newline else encode(piece)

    def _literal_ids(self, text: str) -> list[int]:
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
