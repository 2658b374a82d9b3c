"""Cached environments of the clients, from exact pins: an interpreter or a folder.

They are in `.cache/clients` (MILLM_CLIENTS_HOME moves it), named by a hash of the pins, so that a changed pin builds
a new one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PINS = Path(__file__).parent / "pins"
KEPT = Path(os.environ.get("MILLM_CLIENTS_HOME", Path(__file__).parents[2] / ".cache" / "clients"))
UV = "uv==0.12.0"
TORCH = "torch==2.13.0"
"""Installed alone and first: the CPU build if the index has one."""


def python(name: str, *, torch: bool = False) -> Path:
    """The interpreter of an environment with exactly `pins/NAME.txt`, and torch on request."""
    pins = PINS / f"{name}.txt"

    def build(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        install = (str(_uv()), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"))
        if torch:
            _run(*install, TORCH)
        _run(*install, "--no-deps", "--requirements", str(pins))

    return _once(name, f"{sys.version}{torch}".encode() + pins.read_bytes(), build) / "bin" / "python"


def node(project: Path) -> Path:
    """A folder with the scripts of `project` and its locked packages, installed without running package scripts."""

    def build(folder: Path) -> None:
        folder.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(project / name, folder)
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder)

    folder = _once(project.name, (project / "package-lock.json").read_bytes(), build)
    for script in project.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


def outside() -> dict[str, str]:
    """The environment of a user of the client, without variables of this repository."""
    ours = ("MILLM_", "PYTHONPATH", "VIRTUAL_ENV", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _uv() -> Path:
    """uv, which installs in seconds instead of a minute."""

    def build(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(folder / "bin" / "pip"), "install", "--quiet", UV)

    return _once("uv", f"{sys.version}{UV}".encode(), build) / "bin" / "uv"


def _once(name: str, recipe: bytes, build: Callable[[Path], None]) -> Path:
    """The folder that `build` fills, unless it is complete already."""
    folder = KEPT / f"{name}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        build(folder)
        complete.touch()
    return folder


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=_as_pip_is_set_up(), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def _as_pip_is_set_up() -> dict[str, str]:
    """Package indexes in the names that uv uses."""
    names = {"PIP_FIND_LINKS": "UV_FIND_LINKS", "PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX"}
    return {**outside(), **{uv: os.environ[pip] for pip, uv in names.items() if pip in os.environ}}
