"""What is printed past the log, by C code, by a library or by a process that was started, as lines of the log.

The file descriptors themselves are led into a pipe: nothing that writes to them has to know of it.
"""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

_STDOUT, _STDERR = 1, 2
_LONGEST = 2**16
"""Bytes of a line; what is longer becomes several."""
_LAST_SECONDS = 1.0
"""For a process that outlives this one and still holds the pipe."""
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def taken(tell: Callable[[str], None]) -> Iterator[TextIO]:
    """→ where stderr led before: the way out for the log itself. `tell` is called on a thread of its own."""
    reading, writing = os.pipe()
    before = {number: os.dup(number) for number in (_STDOUT, _STDERR)}
    _lead(dict.fromkeys(before, writing))
    os.close(writing)
    reader = threading.Thread(target=_read, args=(os.fdopen(reading, "rb"), tell), name="millm-printed", daemon=True)
    reader.start()
    try:
        yield os.fdopen(before[_STDERR], "w", encoding="utf-8", buffering=1, closefd=False)
    finally:
        _lead(before)
        reader.join(_LAST_SECONDS)


def _lead(where: dict[int, int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number, target in where.items():
        os.dup2(target, number)


def _read(pipe: BinaryIO, tell: Callable[[str], None]) -> None:
    """Until nobody can write any more. A progress bar's returns end lines, too."""
    with pipe:
        while raw := pipe.readline(_LONGEST):
            for part in _COLOURS.sub("", raw.decode("utf-8", "replace")).splitlines():
                if part.strip():
                    tell(part.strip())
