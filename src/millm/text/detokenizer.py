"""Stream token ids as text that never splits a character and never shows part of a stop string."""

import codecs
from collections.abc import Container, Sequence

from millm.text.tokenizer import Tokenizer


class StopScanner:
    """Releases text up to the stop string that starts first, in pieces of any size; the split does not matter.

    Text is held back only while it may still become a stop string.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop_strings = tuple(filter(None, stop))
        self._first_characters = frozenset(stop[0] for stop in self._stop_strings)
        self._pending = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The text that is safe to show now; "" after a stop string."""
        if self.stopped or not text:
            return ""
        self._pending += text
        return self._release(hold_from=self._first_possible_start())

    def finish(self) -> str:
        """The rest, at the end of the text."""
        return self._release(hold_from=len(self._pending))

    def _release(self, hold_from: int) -> str:
        match = self._first_match()
        self.stopped = self.stopped or (match <= hold_from and match < len(self._pending))
        shown = self._pending[: min(match, hold_from)]
        self._pending = "" if self.stopped else self._pending[len(shown) :]
        return shown

    def _first_match(self) -> int:
        """Start of the first complete stop string, else the length of the text."""
        starts = (self._pending.find(stop) for stop in self._stop_strings)
        return min((start for start in starts if start >= 0), default=len(self._pending))

    def _first_possible_start(self) -> int:
        """Start of the first stop string that reaches the end of the text or beyond, else the length of the text."""
        for start, letter in enumerate(self._pending):
            if letter in self._first_characters:
                tail = self._pending[start:]
                if any(stop.startswith(tail) for stop in self._stop_strings):
                    return start
        return len(self._pending)


class Detokenizer:
    """The text of one sequence, token by token; joined, `tokenizer.decode` of all ids up to the first stop string.

    `is_continuation`: the text follows another one, so its leading space is part of it.
    `visible_ids`: special tokens that a parser reads, so that they appear in the text.
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
        """The text that is safe to send now; may be empty."""
        is_visible = token_id in self._visible_ids
        data = self._tokenizer.token_text(token_id).encode() if is_visible else self._tokenizer.token_bytes(token_id)
        data = self._without_leading_spaces(data)
        return self._release(self._scanner.feed(self._utf8_decoder.decode(data)))

    def finish(self) -> str:
        """The rest at the end of the sequence: text held back for a stop string or an incomplete character."""
        last = self._scanner.feed(self._utf8_decoder.decode(b"", final=True))
        return self._release(last + self._scanner.finish())

    @property
    def stopped(self) -> bool:
        """True once a stop string was found; no more text will be released."""
        return self._scanner.stopped

    @property
    def text(self) -> str:
        """All text released so far."""
        return "".join(self._released)

    def _release(self, text: str) -> str:
        self._released.append(text)
        return text

    def _without_leading_spaces(self, data: bytes) -> bytes:
        dropped = min(self._spaces_to_drop, len(data) - len(data.lstrip(b" ")))
        data = data[dropped:]
        self._spaces_to_drop = 0 if data else self._spaces_to_drop - dropped
        return data


REPLACEMENT_CHARACTER = "\ufffd"  # replaces bytes that are not valid UTF-8


class TokenOffsets:
    """The offset in characters at which each token's text begins.

    A partial character begins where the complete one will; bytes that never become one count as U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoded_length = 0

    def next_offset(self, data: bytes) -> int:
        """Offset of the token with these bytes, which follows the tokens before it."""
        incomplete = self._decoder.getstate()[0]
        text = self._decoder.decode(data)
        invalid = incomplete.decode("utf-8", "replace") if text.startswith(REPLACEMENT_CHARACTER) else ""
        offset = self._decoded_length + len(invalid)
        self._decoded_length += len(text)
        return offset
