"""contrib/millm.service, as systemd reads it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from millm.settings import Settings
from tests.container.composing import ROOT

UNIT = ROOT / "contrib" / "millm.service"
NEEDS_SYSTEMD = "this needs systemd-analyze: apt-get install systemd"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's environment, with the command where pip, pipx and uv install it."""
    command = tmp_path / ".local" / "bin" / "millm"
    command.parent.mkdir(parents=True)
    command.symlink_to(Path(sys.executable).with_name("millm"))
    (tmp_path / "run").mkdir()
    return tmp_path


def analyze(home: Path, unit: Path, verb: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("systemd-analyze")
    assert program, NEEDS_SYSTEMD
    variables = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "SYSTEMD_COLORS": "0"}
    command = [program, "--user", *verb.split(), str(unit)]
    return subprocess.run(command, env=variables, capture_output=True, text=True)


def test_systemd_verifies_the_unit(home: Path) -> None:
    good = analyze(home, UNIT, "verify")
    assert (good.returncode, good.stderr) == (0, "")
    bad = home / "millm.service"
    bad.write_text(UNIT.read_text("utf-8").replace("ProtectSystem=strict", "ProtectSystem=strikt"), encoding="utf-8")
    assert "strikt" in analyze(home, bad, "verify").stderr


def test_the_service_is_hardened(home: Path) -> None:
    report = analyze(home, UNIT, "security --offline=true").stdout
    exposure = re.search(r"Overall exposure level for millm.service: ([\d.]+)", report)
    assert exposure
    assert float(exposure[1]) < 7.5


def test_the_stop_timeout_exceeds_the_servers() -> None:
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert seconds
    assert int(seconds[1]) > Settings.model_fields["drain_timeout"].default


def test_the_service_may_write_where_the_command_writes() -> None:
    """`CacheDirectory` is in the user's ~/.cache, the default of both folders."""
    (folders,) = re.findall(r"^CacheDirectory=(.+)$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert str(Settings.model_fields["home"].default) == f"~/.cache/{folders.split()[0]}"
    assert folders.split()[1] == "huggingface"
