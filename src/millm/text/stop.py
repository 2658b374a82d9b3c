"""Text up to the first stop string, never showing a part of one; knows nothing about tokens.

"First" is the earliest start. Text is held back only while it may still become a stop string.
"""

from collections.abc import Sequence


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
