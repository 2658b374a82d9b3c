"""GitHub's files are what GitHub takes, and its CI runs what `.ci/run` runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def made(text: str) -> set[str]:
    """Targets of `make` that a workflow's steps run, or `.ci/run`."""
    steps = re.findall(r"^\s*(?:make|timed|beside) ([a-z -]+)$", text, re.MULTILINE)
    return {target for step in steps for target in step.split()}


CI = made("\n".join(step.get("run", "") for step in steps(GITHUB / "workflows" / "ci.yml")))


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.github-issue-forms", FORMS),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
)
def test_the_files_are_as_github_wants_them(schema: str, paths: list[Path]) -> None:
    assert paths
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", sorted(CI))
def test_what_it_makes_can_be_made(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


def test_it_makes_all_that_our_own_ci_makes() -> None:
    ours = made((ROOT / ".ci" / "run").read_text("utf-8"))
    assert {"test", "test-slow", "image-test"} <= ours
    assert ours - {"setup"} <= CI


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_jobs_end(path: Path) -> None:
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert [action for action in used if not re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", action)] == []
    for name, job in yaml.safe_load(path.read_text("utf-8"))["jobs"].items():
        assert job["timeout-minutes"] <= 60, name


def test_a_form_asks_for_what_we_need() -> None:
    asked = {form.stem: yaml.safe_load(form.read_text("utf-8"))["body"] for form in FORMS}
    required = {
        form: [field["id"] for field in body if field.get("validations", {}).get("required")]
        for form, body in asked.items()
    }
    assert required == {"bug": ["seen", "doctor"], "feature": ["wanted", "today"]}
