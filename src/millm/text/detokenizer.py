"""Token ids → text that never splits a character nor leaks part of a stop string."""

import codecs
from collections.abc import Container, Sequence

from millm.text.stop import StopScanner
from millm.text.tokenizer import Tokenizer


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
