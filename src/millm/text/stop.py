"""Text up to the first stop string, never showing a part of one; knows nothing about tokens.

"First" is the earliest start. Text is held back only while it may still become a stop string.
"""

from collections.abc import Sequence


class StopScanner:
    """Takes text in pieces of any size, gives back what is safe to show; the split does not change the result."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stops = tuple(filter(None, stop))
        self._first_letters = frozenset(stop[0] for stop in self._stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """What may be shown now, maybe nothing; nothing at all after a stop string."""
        if self.stopped or not text:
            return ""
        self._held += text
        return self._show(hold_from=self._first_possible_start())

    def finish(self) -> str:
        """The rest, when no more text comes."""
        return self._show(hold_from=len(self._held))

    def _show(self, hold_from: int) -> str:
        match = self._first_match()
        self.stopped = self.stopped or (match <= hold_from and match < len(self._held))
        shown = self._held[: min(match, hold_from)]
        self._held = "" if self.stopped else self._held[len(shown) :]
        return shown

    def _first_match(self) -> int:
        """Where the first complete stop string starts; the length of the text when there is none."""
        found = (self._held.find(stop) for stop in self._stops)
        return min((start for start in found if start >= 0), default=len(self._held))

    def _first_possible_start(self) -> int:
        """Where the first stop string starts that reaches the end of the text, and perhaps beyond; the length of
        the text when there is none.
        """
        for start, letter in enumerate(self._held):
            if letter in self._first_letters:
                tail = self._held[start:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return start
        return len(self._held)
