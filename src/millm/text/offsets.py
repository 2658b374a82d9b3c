"""Where each token's text begins in a text, in characters; half a character begins where it will be whole."""

import codecs

REPLACEMENT = "\ufffd"
"""Stands for bytes that are no character."""


class Offsets:
    """Counts along with one text, token by token."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoded = 0

    def place(self, data: bytes) -> int:
        """The bytes of the next token → where its text begins."""
        half_before = self._decoder.getstate()[0]
        text = self._decoder.decode(data)
        never_whole = half_before.decode("utf-8", "replace") if text.startswith(REPLACEMENT) else ""
        begins = self._decoded + len(never_whole)
        self._decoded += len(text)
        return begins
