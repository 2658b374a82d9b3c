""".env.example matches the code, sets nothing, and shows the defaults."""

import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from millm.settings import Settings
from tests.container.composing import ROOT
from tools.env_example import env_example

FILE = ROOT / ".env.example"


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell without variables of miLLM, in an empty folder."""
    for name in (*(f"MILLM_{name.upper()}" for name in Settings.model_fields), "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_example_is_up_to_date() -> None:
    assert FILE.read_text("utf-8") == env_example(), "run `make docs`"


def test_the_example_sets_nothing() -> None:
    assert dotenv_values(FILE) == {}


@pytest.mark.usefixtures("no_settings")
def test_the_shown_values_are_the_defaults() -> None:
    entries = [
        line.removeprefix("#") for line in env_example().splitlines() if line.startswith("#") and line[1:2] != " "
    ]
    shown = [entry for entry in entries if not entry.endswith("=")]
    assert len(shown) > 25
    Path(".env").write_text("\n".join(shown) + "\n", encoding="utf-8")
    from_file = Settings.load()
    Path(".env").unlink()
    assert from_file == Settings.load()


@pytest.mark.usefixtures("no_settings")
def test_the_server_reads_env_from_its_working_folder() -> None:
    Path(".env").write_text("MILLM_PORT=none\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "millm", "serve"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "MILLM_PORT" in done.stderr
