"""`millm doctor`: each check finds what it is for, and the command tells."""

import json
import os
import venv
from pathlib import Path

import pytest

from millm.cli import checks
from millm.cli.checks import Finding
from millm.demo.lock import LOCK
from millm.hub.home import Home
from millm.settings import Settings
from tests.cli.terminal import millm
from tests.fixtures.fakehub import serving
from tests.fixtures.process import Server


def test_beside_a_running_server(server: Server) -> None:
    """In JSON, with a token that must not show."""
    ran = millm("doctor", "--json", "--port", server.url.rpartition(":")[2], home=server.home, HF_TOKEN="hf_secret")
    found = {finding["check"]: finding for finding in json.loads(ran.out)}
    assert ran.code == 0, ran
    assert {tuple(finding) for finding in found.values()} == {("check", "status", "detail", "fix")}
    assert list(found) == ["python", "packages", "torch", "machine", "disk", "home", "port", "demo", "token"]
    assert found["port"]["detail"] == f"a miLLM server answers at {server.url}"
    assert (found["home"]["status"], str(server.process.pid) in found["home"]["detail"]) == ("warning", True)
    assert found["token"]["detail"] == "a Hugging Face token is set"
    assert "hf_secret" not in ran.out + ran.err


def test_something_to_mend(tmp_path: Path) -> None:
    ran = millm("doctor", home=tmp_path, MILLM_PORT="eight")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith(" ✓ python")
    assert lines[-1].startswith(" ✗ settings  MILLM_PORT")
    assert " → correct that variable" in lines[-1]
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(("version", "status"), [((3, 10), "failure"), ((3, 11), "ok"), ((3, 14), "ok")])
def test_python(version: tuple[int, int], status: str) -> None:
    assert checks.python(version).status == status


def test_packages() -> None:
    assert checks.packages().status == "ok"
    assert checks.packages(["pydantic>=2", "transformers>=5.17,<6", "nowhere>=1; python_version<'3'"]).status == "ok"


@pytest.mark.parametrize(
    ("needed", "problem"), [("transformers<5", "transformers is 5."), ("no-such-library>=1", "is missing")]
)
def test_package_that_does_not_fit(needed: str, problem: str) -> None:
    found = checks.packages(["pydantic", needed])
    assert found.status == "failure"
    assert problem in found.detail
    assert found.fix == f'pip install "{needed}"'


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = checks.torch(has_gpu=True)
    assert found.status == "warning"
    assert "a GPU is present but this torch cannot use it: torch 2." in found.detail


def test_no_torch(tmp_path: Path) -> None:
    venv.create(tmp_path)
    found = checks.torch(str(tmp_path / "bin" / "python"))
    assert (found.status, "No module named 'torch'" in found.detail) == ("failure", True)
    assert "pip install torch" in found.fix


def test_machine() -> None:
    assert f"{os.cpu_count()} cores" in checks.machine(needed=1).detail
    assert (checks.machine(needed=1).status, checks.machine(needed=1e15).status) == ("ok", "warning")


def test_disk_of_a_home_that_is_not_there_yet(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    assert (checks.disk(home, needed=1).status, checks.disk(home, needed=1e18).status) == ("ok", "warning")
    assert not home.parent.exists()


def test_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert checks.home(home.folder).status == "ok"
    assert not home.folder.exists()
    home.create()
    with home.locked():
        found = checks.home(home.folder)
    assert (found.status, f"process id {os.getpid()}" in found.detail) == ("warning", True)
    assert checks.home(home.folder).status == "ok"


def test_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert checks.home(tmp_path / "file" / "home").status == "failure"


def test_port(tmp_path: Path) -> None:
    with serving(tmp_path) as other:
        number = int(other.url.rpartition(":")[2])
        assert checks.port("127.0.0.1", number).status == "failure"
    assert checks.port("127.0.0.1", number) == Finding("port", "ok", f"127.0.0.1:{number} is free")
    assert checks.port("203.0.113.7", number).status == "failure"


def test_demo(tmp_path: Path) -> None:
    wheel = tmp_path / "demo.whl"
    assert checks.demo(tmp_path, wheel).status == "failure"
    wheel.touch()
    assert str(wheel) in checks.demo(tmp_path, wheel).detail
    assert "93 MB" in checks.demo(tmp_path, None).detail
    (tmp_path / "demo" / LOCK.key).mkdir(parents=True)
    assert checks.demo(tmp_path, None).detail == "the demo's model is on this disk"


def test_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("HF_TOKEN=hf_secret")
    found = checks.token(Settings.load())
    assert found == Finding("token", "ok", "a Hugging Face token is set")
