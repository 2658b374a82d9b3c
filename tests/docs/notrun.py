"""Commands and blocks that no test runs unchanged: the reason, and the test that replaces it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NotRun:
    page: str
    begins: str
    """The first words of the command, or of the block."""
    why: str
    instead: str
    """A test file, optionally with the test's name."""


_INSTALL = "tests/docs/test_pages.py::test_make_does_what_the_readme_says_it_does"
_OPEN_WEBUI = "tests/openwebui/test_open_webui.py"
_CLIENTS = "tests/docs/test_walks.py::test_a_page_is_followed_with_its_client"

NOT_RUN = (
    NotRun("README.md", "python3 -m venv .venv", "makes an environment beside the tests' own", _INSTALL),
    NotRun("README.md", "pip install -c constraints.txt -e .", "installs torch", _INSTALL),
    NotRun("docs/operations/performance.md", "millm bench", "needs minutes when busy", "tests/cli/test_bench.py"),
    NotRun("docs/recipes/open-webui.md", "pip install open-webui", "2.5 GB, with versions of its own", _OPEN_WEBUI),
    NotRun("docs/recipes/open-webui.md", "set -a; . ./open-webui.env", "needs what is installed above", _OPEN_WEBUI),
    NotRun("docs/recipes/langchain.md", "pip install langchain-openai", "the pinned version is installed", _CLIENTS),
    NotRun("docs/recipes/llm.md", "pip install llm", "the pinned version is installed", _CLIENTS),
    NotRun(
        "docs/recipes/own-sae.md", "from sae_lens import SAE", "SAELens is 670 MB; a folder as it saves one is there",
        "tests/sae/test_formats.py",
    ),
)  # fmt: skip


def is_listed(page: str, text: str) -> bool:
    return any(entry.page == page and text.startswith(entry.begins) for entry in NOT_RUN)
