"""What people wrote about an SAE's features: `labels.jsonl` beside its weights, one object per line."""

from pathlib import Path

import msgspec

from millm.errors import InvalidSae

_FILE = "labels.jsonl"


class Label(msgspec.Struct, frozen=True):
    """One feature; further keys are allowed and left alone."""

    index: int
    label: str = ""
    max_act: float | None = None
    """The largest activation seen when the label was made: the unit `max_act`."""


def read_labels(folder: Path) -> list[Label]:
    """Empty where there are none. Raises InvalidSae naming the line that is not a label."""
    path = folder / _FILE
    if not path.is_file():
        return []
    return [_read(number, line) for number, line in enumerate(path.read_bytes().splitlines(), 1) if line.strip()]


def _read(number: int, line: bytes) -> Label:
    try:
        return msgspec.json.decode(line, type=Label)
    except msgspec.DecodeError as error:
        raise InvalidSae(f"{_FILE}, line {number}: {error}") from error
