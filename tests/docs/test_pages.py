"""The documentation is true: generated pages are fresh, links resolve, named tests exist."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.docs.blocks import EXAMPLE_URL, ROOT, WRITTEN, blocks
from tests.fixtures.process import Server
from tools.make_docs import DOCS, figures, pages, profile_schema

_ERROR = re.compile(r"\b(?P<status>[45]\d\d) `(?P<code>[a-z_]+)`|`(?P<before>[a-z_]+)` \((?P<behind>[45]\d\d)\)")


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize(
    "name",
    ["settings.md", "errors.md", "api.md", "cli.md", "compatibility.md", "reference/openai.md",
     "reference/formats-and-hooks.md", "operations/memory.md", "decisions/index.md"],
)  # fmt: skip
def test_generated_pages_are_fresh(name: str, generated: dict[str, str]) -> None:
    assert (DOCS / name).read_text("utf-8") == generated[name], "run `make docs`"


def test_no_generated_page_is_forgotten(generated: dict[str, str]) -> None:
    noted = {
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*.md")
        if "make_docs.py" in path.read_text("utf-8")[:200]
    }
    assert noted <= set(generated)


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


def test_every_error_that_a_page_names_with_its_status_is_one() -> None:
    known = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", (DOCS / "errors.md").read_text("utf-8"), re.MULTILINE))
    named = [
        (path.name, found["code"] or found["before"], found["status"] or found["behind"])
        for path in WRITTEN
        if path.name != "errors.md"
        for found in _ERROR.finditer(path.read_text("utf-8"))
    ]
    assert len(named) > 30
    assert [(page, code, status) for page, code, status in named if known.get(code) != status] == []


def test_the_zones_of_the_guide_are_those_of_the_page() -> None:
    source = (ROOT / "ui" / "src" / "steering" / "scale.ts").read_text("utf-8")
    zones = re.findall(r'"([a-z ]+)"', source[source.index("export type Zone") :].splitlines()[0])
    limits = re.findall(r"size <=? ([\d.]+)", source)
    guide = (DOCS / "guide" / "strengths.md").read_text("utf-8")
    table = guide[guide.index("share of the norm | zone") :].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]*\d[^|]*) \| ([a-z ]+) \|", table, re.MULTILINE)
    assert [zone for _, zone in rows] == zones
    shown_limits = [sorted({float(number) for number in re.findall(r"[\d.]+", share)}) for share, _ in rows]
    low, middle, high = (float(limit) for limit in limits)
    assert shown_limits == [[low], [low, middle], [middle, high], [high]]


def test_the_figures_of_the_guide_are_those_of_efficacy() -> None:
    guide = (DOCS / "guide" / "strengths.md").read_text("utf-8")
    shown = re.findall(r"^\| ([\d.]+) \| (\d+) % \| ([\d.]+) \| (\d+) % \|", guide, re.MULTILINE)
    page = (DOCS / "efficacy.md").read_text("utf-8")
    rows = re.findall(
        r"^\| ([\d.]+)[^|]* \| ([\d.]+) \|.*?\|[^|]*\| ([\d.]+) \| ([\d.]+) \|",
        page[page.index("## yelling") :],
        re.MULTILINE,
    )
    measured = {
        scale: (f"{100 * float(effect):.0f}", perplexity, f"{100 * float(repeats):.0f}")
        for scale, effect, perplexity, repeats in rows
    }
    assert len(shown) == 6
    assert {scale: tuple(row) for scale, *row in shown} == {scale: measured[scale] for scale, *_ in shown}
