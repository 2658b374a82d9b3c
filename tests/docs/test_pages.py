"""The documentation is true: generated pages are fresh, links lead somewhere, tests that are named are there."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.docs.blocks import EXAMPLE_URL, ROOT, WRITTEN, blocks, commands
from tests.fixtures.process import Server
from tools.make_docs import DOCS, figures, pages, profile_schema

EVERY_COMMAND = sorted({command for path in WRITTEN for command in commands(path)})


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize(
    "name",
    ["settings.md", "errors.md", "api.md", "cli.md", "compatibility.md", "reference/openai.md",
     "reference/formats-and-hooks.md", "operations/memory.md", "decisions/index.md"],
)  # fmt: skip
def test_generated_pages_are_fresh(name: str, made: dict[str, str]) -> None:
    assert (DOCS / name).read_text("utf-8") == made[name], "run `make docs`"


def test_no_generated_page_is_forgotten(made: dict[str, str]) -> None:
    noted = {
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*.md")
        if "make_docs.py" in path.read_text("utf-8")[:200]
    }
    assert noted <= set(made)


def test_the_schema_of_profiles_is_fresh() -> None:
    assert (DOCS / "profile.schema.json").read_text("utf-8") == profile_schema(), "run `make docs`"


def test_the_figures_shown_are_those_measured() -> None:
    shown = figures()
    assert set(shown) == {ROOT / "README.md", ROOT / "benchmarks" / "README.md"}
    for path, text in shown.items():
        assert path.read_text("utf-8") == text, f"{path.name}: run `make docs`"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_make_does_what_the_readme_says_it_does() -> None:
    """The three lines shown for people without make are those that `make demo` runs in a fresh clone."""
    planned = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", "demo", "VENV=.absent"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "python3 -m venv .absent" in planned
    assert re.search(r"pip install .*--constraint constraints.txt --editable \.$", planned, re.MULTILINE)
    assert planned.rstrip().endswith("millm demo")


@pytest.mark.parametrize("command", [command for command in EVERY_COMMAND if command.startswith("make")])
def test_every_make_target_exists(command: str) -> None:
    target = command.split()[1]
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.demo
def test_the_python_example_runs(demo_server: Server) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", code.replace(EXAMPLE_URL, demo_server.url)], capture_output=True, text=True, check=True
    )
    plain, yelling, *excited = done.stdout.strip().splitlines()
    assert plain != plain.upper()
    assert sum(letter.isupper() for letter in yelling) > 0.6 * sum(letter.isalpha() for letter in yelling)
    assert excited


@pytest.mark.demo
def test_the_start_page_shows_what_is_there(demo_server: Server) -> None:
    page = httpx.get(demo_server.url).text
    for shown in (
        "smollm2-135m-instruct",
        "smollm2-135m-l20-4k",
        "smollm2-135m-instruct:yelling",
        f"{demo_server.url}/v1",
    ):
        assert shown in page


def test_every_test_that_proves_a_requirement_is_there() -> None:
    page = (DOCS / "requirements.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+)(?:\[([\w-]+)\])?)?`", page)
    assert len(named) > 50
    for path, test, case in named:
        source = (ROOT / path).read_text("utf-8")
        assert not test or f"def {test}(" in source, f"{path}::{test}"
        assert not case or f'"{case}"' in source, f"{path}::{test}[{case}]"
