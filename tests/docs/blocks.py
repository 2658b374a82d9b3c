"""The fenced blocks of the README and of every page, and the commands in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.make_docs import DOCS

ROOT = DOCS.parent
WRITTEN = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
    *sorted(DOCS.rglob("*.md")),
]
EXAMPLE_URL = "http://127.0.0.1:8000"

SHELL = ("console", "bash", "sh")
RUN = (*SHELL, "python", "json", "yaml", "http")
SHOWN = ("text", "")
"""Blocks that are not run: answers, tables, drawings."""

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_TITLE = re.compile(r'title="([^"]+)"')
_NEXT = re.compile(r"\n(?=[a-zA-Z#])")
"""A command starts at the left margin; its continuation lines are indented, or start with a sign."""


@dataclass(frozen=True)
class Block:
    page: str
    """Path from the repository's root."""
    language: str
    title: str
    """The file that the block is saved as; or `prints`: the output of the block before."""
    text: str

    @property
    def commands(self) -> list[str]:
        return [part.strip() for part in _NEXT.split("\n" + self.text) if part.strip() and part.strip()[0] != "#"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def all_blocks() -> Iterator[Block]:
    for path in WRITTEN:
        yield from blocks_of(path)


def blocks_of(path: Path) -> Iterator[Block]:
    for found in _BLOCK.finditer(path.read_text("utf-8")):
        title = _TITLE.search(found["info"])
        yield Block(name_of(path), found["language"], title[1] if title else "", found["text"])


def blocks(path: Path, language: str) -> list[str]:
    """The texts of one language."""
    return [block.text for block in blocks_of(path) if block.language == language]


def commands(path: Path) -> list[str]:
    """Each command of the page's console blocks, continuation lines included."""
    return [command for block in blocks_of(path) if block.language == "console" for command in block.commands]
