"""The documentation is true: generated pages are fresh, links lead somewhere, every command and example runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from millm.profiles.contract import Profile
from tests.cli.terminal import millm
from tests.fixtures.fakehub import serving
from tests.fixtures.process import Server, running
from tools.make_docs import DOCS, figures, pages, profile_schema

ROOT = DOCS.parent
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLE_URL = "http://127.0.0.1:8000"


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[str]:
    """Each command of the page's console blocks, continuation lines included."""
    lines = "".join(blocks(path, "console"))
    return [part.strip() for part in re.split(r"\n(?=[A-Za-z#])", "\n" + lines) if part.strip()]


EVERY_COMMAND = sorted({command for path in WRITTEN for command in commands(path)})


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize(
    "name", ["settings.md", "errors.md", "api.md", "cli.md", "compatibility.md", "operations/running.md"]
)
def test_generated_pages_are_fresh(name: str, made: dict[str, str]) -> None:
    assert (DOCS / name).read_text("utf-8") == made[name], "run `make docs`"


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
@pytest.mark.parametrize(
    "command", [command for command in EVERY_COMMAND if command.startswith("curl") and "/v1/chat" in command]
)
def test_every_curl_answers(command: str, demo_server: Server) -> None:
    done = subprocess.run(
        ["bash", "-c", command.replace(EXAMPLE_URL, demo_server.url)], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"]
    assert answer["millm"]["steering"]


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
def test_the_examples_of_structured_output_run(demo_server: Server) -> None:
    code = "\n".join(blocks(DOCS / "structured-output.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", code.replace(EXAMPLE_URL, demo_server.url)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == blocks(DOCS / "structured-output.md", "text")[0].splitlines()


def test_the_other_commands_are_known() -> None:
    """What is neither make nor curl is the README's install, or one of ours whose options exist.

    `tests/container/test_operations.py` has those of docs/operations.
    """
    looked_at = {command for path in (DOCS / "operations").glob("*.md") for command in commands(path)}
    others = [command for command in EVERY_COMMAND if not command.startswith(("make", "curl"))]
    install = {
        "python3 -m venv .venv && . .venv/bin/activate",
        "pip install -c constraints.txt -e .",
        "millm demo",
    }
    ours = {"millm serve google/gemma-2-2b --sae google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"}
    pages = (DOCS / "library.md", DOCS / "python.md", DOCS / "operations" / "running.md")
    run_elsewhere = {command for page in pages for command in commands(page)}
    assert set(others) == install | ours | {command for command in run_elsewhere if not command.startswith("curl")}


def test_the_librarys_commands_run(repositories: Path, tmp_path: Path) -> None:
    """One after the other, against the server that the first of them starts."""
    first, *others = commands(DOCS / "library.md")
    assert first == "millm serve"
    with serving(repositories) as hub:
        variables = hub.environment(tmp_path / "cache")
        with running("serve", model="", home=tmp_path / "home", variables=variables) as server:
            port = server.url.rpartition(":")[2]
            for command in others:
                ran = millm(*command.split()[1:], home=tmp_path / "home", MILLM_PORT=port)
                assert (ran.code, ran.left) == (0, []), (command, ran.err)


def test_the_profile_example_is_one() -> None:
    (example,) = blocks(DOCS / "steering.md", "json")
    assert Profile.model_validate(json.loads(example)).name == "less-law"


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
