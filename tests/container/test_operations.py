"""docs/operations: files, services, profiles, arguments and commands exist; commands are run where possible."""

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from millm.cli import COMMANDS
from tests.container.composing import ROOT, composed, started, variables_of
from tests.container.test_service import analyze
from tests.docs.blocks import commands

DOCS = ROOT / "docs" / "operations"
DOCKER = commands(DOCS / "docker.md")
SYSTEMD = commands(DOCS / "systemd.md")
FILE_COMMANDS = [command for command in SYSTEMD if command.startswith(("mkdir", "ln", "cp"))]
SERVICE_COMMANDS = [command for command in SYSTEMD if command not in FILE_COMMANDS]


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables in front, and the rest."""
    words = shlex.split(command)
    variables = [word for word in words if re.match(r"[A-Z_]+=", word) and words.index(word) < words.index("docker")]
    return dict(word.split("=", 1) for word in variables), words[len(variables) + 1 :]


def starting(verb: str) -> list[str]:
    return [command for command in DOCKER if re.search(rf"(^|\s)docker {verb}", command)]


def test_every_command_is_checked() -> None:
    others = {*DOCKER} - {*starting("compose"), *starting("build"), *starting("run")}
    assert others == {"cp .env.example .env", "make image-test"}
    assert (ROOT / ".env.example").is_file()


@pytest.mark.parametrize("command", starting("compose"))
def test_compose_services_in_the_docs_exist(command: str) -> None:
    variables, (_, *words) = words_of(command)
    files, profiles = [], []
    while words[0].startswith("-"):
        option, value, *words = words
        {"-f": files, "--profile": profiles}[option].append(value)
    assert words[0] in ("up", "build")
    assert words[1:] in ([], ["--build"])
    files = files or ["compose.yaml"]
    config = composed(*files, **variables)
    assert set(variables) <= variables_of(*files)
    assert started(config, *profiles) == {"millm", *(["open-webui"] if "chat" in profiles else [])}
    assert shlex.split(config["services"]["millm"]["command"])[0] in COMMANDS
    assert ("deploy" in config["services"]["millm"]) == ("compose.cpu.yaml" not in files)


@pytest.mark.parametrize("command", starting("build"))
def test_the_dockerfile_has_the_arguments(command: str) -> None:
    _, (_, *words) = words_of(command)
    assert words[-1] == "."
    options = dict(zip(words[:-1:2], words[1:-1:2], strict=True))
    assert set(options) <= {"-t", "--build-arg"}
    given = {word.split("=")[0] for option, word in pairwise(words) if option == "--build-arg"}
    assert given <= set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("command", starting("run"))
def test_docker_commands_match_the_image(command: str) -> None:
    """Of images that are built on the same page, with a command that there is."""
    built = {words_of(build)[1][2] for build in starting("build")}
    words = words_of(command)[1]
    image = next(word for word in words if word in built)
    assert set(words[words.index(image) + 1 :]) <= set(COMMANDS)
    assert "127.0.0.1:8000:8000" in words
    assert "millm-data:/data" in words
    taken = {"run", "--rm", "--gpus", "all", "-p", "-v", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"}
    assert set(words[: words.index(image)]) <= {*taken, "127.0.0.1:8000:8000", "millm-data:/data"}


def test_the_table_of_arguments_is_complete() -> None:
    page = (DOCS / "docker.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    stages = (ROOT / "Dockerfile").read_text("utf-8")
    assert documented == set(re.findall(r"^ARG (\w+)", stages, re.MULTILINE)) - {"VERSION", "REVISION"}
    secrets = set(re.findall(r"--secret id=(\w+)", page))
    assert secrets == set(re.findall(r"type=secret,id=(\w+)", stages))


def test_the_service_is_installed_as_documented(tmp_path: Path) -> None:
    """Every command that writes is run in this interpreter's environment, and systemd accepts the result."""
    environment = Path(sys.executable).parents[1]
    variables = {**os.environ, "HOME": str(tmp_path)}
    for command in FILE_COMMANDS:
        documented = command.replace("$PWD/.venv", str(environment))
        subprocess.run(["bash", "-c", documented], cwd=ROOT, env=variables, check=True)
    (tmp_path / "run").mkdir()
    done = analyze(tmp_path, tmp_path / ".config" / "systemd" / "user" / "millm.service", "verify")
    assert (done.returncode, done.stderr) == (0, "")
    read = re.findall(r"^EnvironmentFile=-%h/(.+)$", (ROOT / "contrib" / "millm.service").read_text(), re.MULTILINE)
    assert [(tmp_path / file).is_file() for file in read] == [True]


def test_other_commands_refer_to_the_service() -> None:
    about = [command for command in SERVICE_COMMANDS if "millm" in command]
    assert about == [
        "systemctl --user enable --now millm",
        "journalctl --user -u millm -f",
        "systemctl --user restart millm",
    ]
    assert set(SERVICE_COMMANDS) - set(about) == {"systemctl --user daemon-reload", "loginctl enable-linger"}
