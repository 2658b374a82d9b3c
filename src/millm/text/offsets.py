"""Where each token's text begins in a text, in characters; half a character begins where it will be whole."""

import codecs

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
