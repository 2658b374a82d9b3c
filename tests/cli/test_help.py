"""`millm --help` and the help of each command: immediate, without torch, with an example."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from millm import __version__
from millm.cli import COMMANDS
from tests.cli.terminal import millm


def test_help_names_every_command(tmp_path: Path) -> None:
    ran = millm("--help", home=tmp_path)
    assert ran.code == 0
    for name, command in COMMANDS.items():
        assert f" {name} " in ran.out
        assert command.summary.split(":")[0] in ran.out
        assert f" {command.panel} " in ran.out


@pytest.mark.cold
def test_help_is_immediate(tmp_path: Path) -> None:
    """In processor time: wall-clock time depends on the load of the machine."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        millm("--help", home=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_and_needs_no_torch(command: str) -> None:
    help_text = help_without_torch(command, "--help")
    _, _, example = help_text.partition("Example")
    assert f"millm {'chat' if command == 'demo' else command} " in example


def test_help_needs_no_torch() -> None:
    assert "Usage: millm" in help_without_torch("--help")


def help_without_torch(*arguments: str) -> str:
    """The help; fails if torch or transformers was imported."""
    code = (
        "import contextlib, sys\n"
        "from millm.__main__ import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print(*({'torch', 'transformers'} & {*sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    return done.stdout


def test_version(tmp_path: Path) -> None:
    ran = millm("--version", home=tmp_path)
    assert (ran.code, ran.out.strip()) == (0, f"millm {__version__}")


def test_unknown_command(tmp_path: Path) -> None:
    ran = millm("sreve", home=tmp_path)
    assert ran.code == 2
    assert "sreve" in ran.err
    assert "Traceback" not in ran.err


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    assert "millm demo" in millm(home=tmp_path).out
