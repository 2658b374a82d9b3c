"""What one check of `millm doctor` found."""

from typing import Literal

import msgspec


class CheckResult(msgspec.Struct, frozen=True):
    """`fix` is empty where nothing is to be mended."""

    check: str
    status: Literal["ok", "warning", "failure"]
    detail: str
    fix: str = ""
