"""The version is written once."""

import subprocess
import sys
import tomllib
from pathlib import Path

from millm import __version__

ROOT = Path(__file__).parents[2]


def test_the_package_version_is_the_codes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    source = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert source.read_text("utf-8").count(f'__version__ = "{__version__}"') == 1


def test_the_command_prints_the_version() -> None:
    output = subprocess.run([sys.executable, "-m", "millm", "--version"], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == f"millm {__version__}"
