"""The figures of one benchmark, saved to disk after every section."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import machine
from millm.errors import MillmError

FAILURES = (MillmError, OSError, subprocess.SubprocessError)
"""Failures of a section after which the others continue."""

RESULTS = Path(__file__).parent / "results"


class Record:
    """`path` holds the sections so far, and the machine."""

    def __init__(self, path: Path, description: str) -> None:
        self._path = path
        self._sections: dict[str, Any] = {"what": description, "machine": machine.describe()}

    def section(self, name: str, measure: Callable[[], object]) -> None:
        """Store the result of `measure`, or the reason of its failure, under `name`; slashes nest."""
        print(f"{name} …", flush=True)
        try:
            value = msgspec.to_builtins(measure())
        except FAILURES as failure:
            print(f"{name} failed: {failure}", flush=True)
            value = {"not_run": _reason(failure)}
        self.put(name, value)
        print(f"{name}: {json.dumps(value)}", flush=True)

    def put(self, name: str, value: object) -> None:
        *outer, last = name.split("/")
        section = self._sections
        for key in outer:
            section = section.setdefault(key, {})
        section[last] = value
        self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps(self._sections, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, self._path)


def _reason(failure: Exception) -> str:
    """Without the machine's paths, which the messages of others hold: the file is committed."""
    return str(failure) if isinstance(failure, MillmError) else type(failure).__name__
