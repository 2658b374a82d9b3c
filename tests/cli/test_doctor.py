"""`millm doctor`: each check, and the command."""

import json
import os
import shutil
import threading
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest

from millm.cli import doctor
from millm.cli.doctor import CheckResult, TorchProbe
from millm.demo.bundle import WEIGHTS_LOCK
from millm.hardware import CpuFallbackReason
from millm.hub.home import Home
from millm.settings import Settings
from tests.cli.terminal import millm
from tests.fixtures.fakehub import serving
from tests.fixtures.process import Server


def test_json_beside_a_running_server(server: Server) -> None:
    """The token must not be printed."""
    ran = millm("doctor", "--json", "--port", server.url.rpartition(":")[2], home=server.home, HF_TOKEN="hf_secret")
    results = {result["check"]: result for result in json.loads(ran.out)}
    assert ran.code == 0, ran
    assert {tuple(result) for result in results.values()} == {("check", "status", "detail", "fix")}
    assert list(results) == [
        "python", "packages", "torch", "bitsandbytes", "machine", "disk", "cache", "home", "port", "demo", "token",
        "pages",
    ]  # fmt: skip
    assert f"torch {metadata.version('torch')}" in results["torch"]["detail"]
    assert f"bitsandbytes {metadata.version('bitsandbytes')} works on" in results["bitsandbytes"]["detail"]
    assert results["port"]["detail"] == f"a miLLM server answers at {server.url}"
    assert (results["home"]["status"], str(server.process.pid) in results["home"]["detail"]) == ("warning", True)
    assert results["token"]["detail"] == "a Hugging Face token is set"
    assert "hf_secret" not in ran.out + ran.err


def test_a_failure_sets_the_exit_code(tmp_path: Path) -> None:
    ran = millm("doctor", home=tmp_path, MILLM_PORT="eight")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith(" ✓ python")
    assert lines[-1].startswith(" ✗ settings     MILLM_PORT")
    assert " → correct that variable" in lines[-1]
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(("version", "status"), [((3, 10), "failure"), ((3, 11), "ok"), ((3, 14), "ok")])
def test_python(version: tuple[int, int], status: str) -> None:
    assert doctor.check_python(version).status == status


def test_packages() -> None:
    assert doctor.check_packages().status == "ok"
    assert (
        doctor.check_packages(["pydantic>=2", "transformers>=5.17,<6", "nowhere>=1; python_version<'3'"]).status == "ok"
    )


@pytest.mark.parametrize(
    ("needed", "problem"), [("transformers<5", "transformers is 5."), ("no-such-library>=1", "is missing")]
)
def test_package_that_does_not_fit(needed: str, problem: str) -> None:
    found = doctor.check_packages(["pydantic", needed])
    assert found.status == "failure"
    assert problem in found.detail
    assert found.fix == f'pip install "{needed}"'


def probe(**changes: Any) -> TorchProbe:
    return TorchProbe(**({"torch": "2.13.0", "built_for": "CUDA 13.0", "threads": 2, "devices": ()} | changes))


def test_a_gpu_that_torch_cannot_use() -> None:
    """The reason and the fix come from `millm.hardware` (tests/test_hardware.py)."""
    found = doctor.check_torch(
        probe(), CpuFallbackReason(message="a GPU is present but this torch cannot use it", fix="pip install")
    )
    assert (found.status, found.detail) == ("warning", "a GPU is present but this torch cannot use it")
    assert found.fix == "pip install (or go on with the CPU)"


def test_a_gpu_that_works() -> None:
    found = doctor.check_torch(probe(devices=("NVIDIA Model 0",)), None)
    assert found == CheckResult("torch", "ok", "torch 2.13.0 on NVIDIA Model 0")


@pytest.mark.parametrize(("devices", "where"), [((), "the CPU"), (("NVIDIA Model 0",), "the GPU")])
def test_bitsandbytes(devices: tuple[str, ...], where: str) -> None:
    works = doctor.check_bitsandbytes(probe(devices=devices, bitsandbytes="0.50.2"))
    assert (works.status, f"works on {where}" in works.detail) == ("ok", True)
    broken = doctor.check_bitsandbytes(probe(devices=devices, problem="OSError: libcudart"))
    assert (broken.status, where in broken.detail, "pip install" in broken.fix) == ("warning", True, True)


def test_no_torch(tmp_path: Path) -> None:
    venv.create(tmp_path)
    (found,) = doctor.check_engine(str(tmp_path / "bin" / "python"))
    assert (found.status, "No module named 'torch'" in found.detail) == ("failure", True)
    assert "pip install torch" in found.fix


def test_machine() -> None:
    assert f"{len(os.sched_getaffinity(0))} processor" in doctor.check_machine(needed=1).detail
    assert (doctor.check_machine(needed=1).status, doctor.check_machine(needed=1e15).status) == ("ok", "warning")


def test_disk_of_a_home_that_does_not_exist_yet(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    assert (doctor.check_disk(home, needed=1).status, doctor.check_disk(home, needed=1e18).status) == ("ok", "warning")
    assert not home.parent.exists()


def test_cache_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert doctor.check_cache(tmp_path / "hub", reserve=free // 2).status == "ok"
    full = doctor.check_cache(tmp_path / "hub", reserve=2 * free)
    assert (full.status, "HF_HOME" in full.fix) == ("warning", True)


def test_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert doctor.check_home(home.folder).status == "ok"
    assert not home.folder.exists()
    home.create()
    with home.lock():
        found = doctor.check_home(home.folder)
    assert (found.status, f"process id {os.getpid()}" in found.detail) == ("warning", True)
    assert doctor.check_home(home.folder).status == "ok"


def test_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert doctor.check_home(tmp_path / "file" / "home").status == "failure"


def test_port(tmp_path: Path) -> None:
    with serving(tmp_path) as other:
        number = int(other.url.rpartition(":")[2])
        assert doctor.check_port("127.0.0.1", number).status == "failure"
    assert doctor.check_port("127.0.0.1", number) == CheckResult("port", "ok", f"127.0.0.1:{number} is free")
    assert doctor.check_port("203.0.113.7", number).status == "failure"


def test_demo(tmp_path: Path) -> None:
    wheel = tmp_path / "demo.whl"
    assert doctor.check_demo(tmp_path, wheel).status == "failure"
    wheel.touch()
    assert str(wheel) in doctor.check_demo(tmp_path, wheel).detail
    assert "93 MB" in doctor.check_demo(tmp_path, None).detail
    (tmp_path / "demo" / WEIGHTS_LOCK.key).mkdir(parents=True)
    assert doctor.check_demo(tmp_path, None).detail == "the demo's model is on this disk"


def test_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("HF_TOKEN=hf_secret")
    found = doctor.check_token(Settings.load())
    assert found == CheckResult("token", "ok", "a Hugging Face token is set")


TOKEN = Settings(HF_TOKEN="hf_secret")


class _Hub(BaseHTTPRequestHandler):
    """Accepts one token."""

    def do_GET(self) -> None:
        is_known = self.path == "/api/whoami-v2" and self.headers["Authorization"] == "Bearer hf_secret"
        self.send_response(200 if is_known else 401)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with HTTPServer(("127.0.0.1", 0), _Hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_online_token_check(hub: None) -> None:
    assert doctor.check_token(TOKEN, online=True).detail == "a Hugging Face token is set, and accepted"
    wrong = doctor.check_token(Settings(HF_TOKEN="hf_wrong"), online=True)
    assert (wrong.status, "status 401" in wrong.detail) == ("failure", True)
    assert "hf_wrong" not in wrong.detail + wrong.fix


def test_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert doctor.check_token(TOKEN, online=True).status == "warning"
    assert doctor.check_token(TOKEN).status == "ok", "no request is sent"


def test_pages_check_matches_what_the_server_serves(server: Server) -> None:
    is_there = httpx.get(f"{server.url}/ui/").status_code == 200
    assert is_there == (doctor.check_pages().detail == "the browser's pages are here")
