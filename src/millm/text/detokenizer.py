"""Token ids → text that never splits a character nor leaks part of a stop string.

Text up to the first stop string, never showing a part of one; knows nothing about tokens.

"First" is the earliest start. Text is held back only while it may still become a stop string.

Where each token's text begins in a text, in characters; half a character begins where it will be whole.
"""

import codecs
from collections.abc import Container, Sequence

from millm.text.tokenizer import Tokenizer


class StopScanner:
    """Takes text in pieces of any size, gives back what is safe to show; the split does not change the result."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop_strings = tuple(filter(None, stop))
        self._first_characters = frozenset(stop[0] for stop in self._stop_strings)
        self._pending = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """What may be shown now, maybe nothing; nothing at all after a stop string."""
        if self.stopped or not text:
            return ""
        self._pending += text
        return self._release(hold_from=self._first_possible_start())

    def finish(self) -> str:
        """The rest, when no more text comes."""
        return self._release(hold_from=len(self._pending))

    def _release(self, hold_from: int) -> str:
        match = self._first_match()
        self.stopped = self.stopped or (match <= hold_from and match < len(self._pending))
        shown = self._pending[: min(match, hold_from)]
        self._pending = "" if self.stopped else self._pending[len(shown) :]
        return shown

    def _first_match(self) -> int:
        """Where the first complete stop string starts; the length of the text when there is none."""
        found = (self._pending.find(stop) for stop in self._stop_strings)
        return min((start for start in found if start >= 0), default=len(self._pending))

    def _first_possible_start(self) -> int:
        """Where the first stop string starts that reaches the end of the text, and perhaps beyond; the length of
        the text when there is none.
        """
        for start, letter in enumerate(self._pending):
            if letter in self._first_characters:
                tail = self._pending[start:]
                if any(stop.startswith(tail) for stop in self._stop_strings):
                    return start
        return len(self._pending)


class Detokenizer:
    """The text of one sequence, token by token: joined, `tokenizer.decode` of all ids up to the first stop.

    `continues`: the text goes on behind another one, so its first space is part of it.
    `shown`: ids of special tokens that are part of the text here, because somebody reads a meaning from them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        is_continuation: bool = False,
        visible_ids: Container[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._visible_ids = visible_ids
        self._spaces_to_drop = 0 if is_continuation else tokenizer.byte_decoder.leading_spaces
        self._utf8_decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._scanner = StopScanner(stop)
        self._released: list[str] = []

    def push(self, token_id: int) -> str:
        """The text that is safe to send now, maybe ""."""
        data = self._without_leading_spaces(self._token_bytes(token_id))
        return self._release(self._scanner.feed(self._utf8_decoder.decode(data)))

    def finish(self) -> str:
        """The rest at the end of the sequence: what was held back for a stop string or a character's end."""
        last = self._scanner.feed(self._utf8_decoder.decode(b"", final=True))
        return self._release(last + self._scanner.finish())

    @property
    def stopped(self) -> bool:
        """A stop string was found: the text before it is released, nothing more will be."""
        return self._scanner.stopped

    @property
    def text(self) -> str:
        """All that was released."""
        return "".join(self._released)

    def _token_bytes(self, token_id: int) -> bytes:
        is_shown = token_id in self._visible_ids
        return self._tokenizer.token_text(token_id).encode() if is_shown else self._tokenizer.token_bytes(token_id)

    def _release(self, text: str) -> str:
        self._released.append(text)
        return text

    def _without_leading_spaces(self, data: bytes) -> bytes:
        while self._spaces_to_drop and data:
            if not data.startswith(b" "):
                self._spaces_to_drop = 0
            else:
                self._spaces_to_drop -= 1
                data = data[1:]
        return data


REPLACEMENT_CHARACTER = "\ufffd"
"""Stands for bytes that are no character."""


class TokenOffsets:
    """Counts along with one text, token by token."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoded_length = 0

    def next_offset(self, data: bytes) -> int:
        """The bytes of the next token → where its text begins."""
        half_before = self._decoder.getstate()[0]
        text = self._decoder.decode(data)
        never_whole = half_before.decode("utf-8", "replace") if text.startswith(REPLACEMENT_CHARACTER) else ""
        begins = self._decoded_length + len(never_whole)
        self._decoded_length += len(text)
        return begins
