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
_MAX_LINE_BYTES = 2**16
"""Bytes of a line; what is longer becomes several."""
_JOIN_SECONDS = 1.0
"""For a process that outlives this one and still holds the pipe."""
_ANSI_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def capture_output(on_line: Callable[[str], None]) -> Iterator[TextIO]:
    """→ where stderr led before: the way out for the log itself. `tell` is called on a thread of its own."""
    reading, writing = os.pipe()
    before = {number: os.dup(number) for number in (_STDOUT, _STDERR)}
    _redirect(dict.fromkeys(before, writing))
    os.close(writing)
    reader = threading.Thread(
        target=_read_lines, args=(os.fdopen(reading, "rb"), on_line), name="millm-printed", daemon=True
    )
    reader.start()
    try:
        yield os.fdopen(before[_STDERR], "w", encoding="utf-8", buffering=1, closefd=False)
    finally:
        _redirect(before)
        reader.join(_JOIN_SECONDS)


def _redirect(targets: dict[int, int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number, target in targets.items():
        os.dup2(target, number)


def _read_lines(pipe: BinaryIO, on_line: Callable[[str], None]) -> None:
    """Until nobody can write any more. A progress bar's returns end lines, too."""
    with pipe:
        while raw := pipe.readline(_MAX_LINE_BYTES):
            for part in _ANSI_COLOURS.sub("", raw.decode("utf-8", "replace")).splitlines():
                if part.strip():
                    on_line(part.strip())
