"""The options that several commands share, and parsers of option values."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from millm.errors import CannotStart, InvalidRequest
from millm.settings import Settings
from millm.status import ModelSpec

Host = Annotated[str | None, typer.Option(help="Address to listen on (MILLM_HOST; default 127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (MILLM_PORT; default 8000).")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N (MILLM_DEVICE; default auto).")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16 (MILLM_DTYPE; default auto).")]
Quantization = Annotated[
    str | None,
    typer.Option(help="none, 8bit or 4bit: weights through bitsandbytes (MILLM_QUANTIZATION; default none)."),
]
CpuInt8 = Annotated[
    str | None,
    typer.Option("--cpu-int8", help="auto or off: linear layers in 8 bits on a CPU (MILLM_CPU_INT8; default auto)."),
]
HomeFolder = Annotated[Path | None, typer.Option("--home", help="Folder of miLLM's data (MILLM_HOME).")]
Url = Annotated[
    str | None, typer.Option("--url", help="Where the server is (default http://127.0.0.1 and MILLM_PORT or 8000).")
]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="The server's key, if it has one (MILLM_API_KEY).")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_WIDTH_PATTERN = re.compile(r"(\d+)([km]?)", re.IGNORECASE | re.ASCII)
_WIDTHS_BY_THOUSANDS = {2**exponent // 1000: 2**exponent for exponent in range(10, 24)}
"""Thousands in an SAE's name → features: `width_65k` has 65,536."""


def parse_model_options(id: str, **options: str | int | None) -> ModelSpec:
    """`options`: fields of ModelSpec; None is the server's setting. Raises CannotStart naming an invalid one."""
    values = given_options(**options)
    Settings.load(**{name: value for name, value in values.items() if name in Settings.model_fields})
    return msgspec.convert({"id": id, **values}, ModelSpec)


def given_options(**options: object) -> dict[str, object]:
    """Without those that are None."""
    return {name: value for name, value in options.items() if value is not None}


def parse_numbers(
    option: str, text: str, example: str, kind: str = "numbers", is_valid: Callable[[float], bool] = math.isfinite
) -> list[float]:
    """Numbers with commas between. Raises CannotStart."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(map(is_valid, numbers)):
        raise CannotStart(f"--{option} {text!r}: give {kind} with commas between, such as {example}")
    return numbers


def parse_integers(option: str, text: str, example: str, maximum: int | None = None) -> list[int]:
    """Whole numbers with commas between, from 1 to `maximum` if given. Raises CannotStart."""

    def is_valid(number: float) -> bool:
        return number.is_integer() and (maximum is None or 1 <= number <= maximum)

    kind = "whole numbers" if maximum is None else f"whole numbers from 1 to {maximum}"
    return [int(number) for number in parse_numbers(option, text, example, kind, is_valid)]


def parse_width(text: str) -> int:
    """Features: `16384`, `16k`, `65k` (65,536, as in Gemma Scope's names), `1m`. Raises InvalidRequest."""
    match = _WIDTH_PATTERN.fullmatch(text)
    if not match:
        raise InvalidRequest(f"--width {text!r} is not a number of features; give one such as 16384 or 16k")
    count, unit = int(match[1]), match[2].lower()
    if unit == "m":
        return count * 2**20
    return _WIDTHS_BY_THOUSANDS.get(count, count * 1024) if unit == "k" else count
