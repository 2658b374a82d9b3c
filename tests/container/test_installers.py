"""The pip configuration of a build: all settings of this machine, without its paths."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from tools.image.buildah import Given
from tools.image.installers import SEEN, installers


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip, with a folder of wheels, an index on the disk, and a file of constraints; variables win over the file."""
    folder = tmp_path / "mirror"
    for inner in ("wheels", "index/simple"):
        (folder / inner).mkdir(parents=True)
    (folder / "limits.txt").write_text("torch<3\n", encoding="utf-8")
    config = folder / "pip.conf"
    config.write_text(
        "[global]\ntimeout = 7\nfind-links = /nowhere\n"
        f"extra-index-url = file://{folder}/index/simple https://pypi.example.org/simple\n"
        f"[install]\nconstraint = {folder}/limits.txt\n",
        encoding="utf-8",
    )
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder / "wheels"))
    return folder


def written(given: Given) -> configparser.RawConfigParser:
    config = configparser.RawConfigParser()
    config.read(given.secrets["pip"])
    return config


def test_settings_arrive_with_paths_of_the_build(configured: Path, tmp_path: Path) -> None:
    with installers(tmp_path / "given") as given:
        config = written(given)
        sources = {target: folder for folder, target in given.folders.items()}
        index, elsewhere = config["global"]["extra-index-url"].split()
        assert config["global"]["timeout"] == "7"
        assert elsewhere == "https://pypi.example.org/simple"
        assert sources[config["global"]["find-links"]] == configured / "wheels"
        assert index.startswith("file://")
        assert sources[index.removeprefix("file://").removesuffix("/simple")] == configured / "index"
        constraint = Path(config["install"]["constraint"])
        assert (sources[str(constraint.parent)] / constraint.name).read_text("utf-8") == "torch<3\n"
        assert all(target.startswith(SEEN) for target in sources)
        assert str(configured) not in given.secrets["pip"].read_text("utf-8")


@pytest.mark.usefixtures("configured")
def test_pip_reads_the_written_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installers(tmp_path / "given") as given:
        monkeypatch.setenv("PIP_CONFIG_FILE", str(given.secrets["pip"]))
        monkeypatch.delenv("PIP_FIND_LINKS")
        output = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    assert "global.timeout='7'" in output
    assert f"global.find-links='{SEEN}/" in output


@pytest.mark.usefixtures("configured")
def test_no_files_remain_after_the_commands(tmp_path: Path) -> None:
    with installers(tmp_path / "given") as given:
        assert given.secrets["npm"].exists()
    assert not (tmp_path / "given").exists()
