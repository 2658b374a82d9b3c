"""The commands and blocks that no test runs as they stand: why, and what is checked instead."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NotRun:
    page: str
    begins: str
    """The first words of the command, or of the block."""
    why: str
    instead: str
    """A test's file, with its name where that says more."""


NOT_RUN = (
    NotRun(
        "README.md", "python3 -m venv .venv",
        "installs torch", "tests/docs/test_pages.py::test_make_does_what_the_readme_says_it_does",
    ),
    NotRun(
        "README.md", "pip install -c constraints.txt -e .",
        "installs torch", "tests/docs/test_pages.py::test_make_does_what_the_readme_says_it_does",
    ),
)  # fmt: skip


def is_listed(page: str, text: str) -> bool:
    return any(entry.page == page and text.startswith(entry.begins) for entry in NOT_RUN)
