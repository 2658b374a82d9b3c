"""The complete benchmarks on a tiny model: real servers, real `generate`, one block."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from benchmarks import overhead, peers, readers, servers, throughput
from benchmarks.generate import Generate
from benchmarks.record import Record
from benchmarks.servers import Running
from benchmarks.tables import page, read, summary
from millm.cli.bench import make_prompts, time_request
from millm.cli.http_client import RemoteServer
from millm.errors import CannotStart
from tests.fixtures.process import Server

SIZES = (32, 64)


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with servers.millm(tiny_model, tmp_path_factory.mktemp("plain") / "home", cpu_int8="off") as running:
        yield running


@pytest.fixture(scope="module")
def tapped(server: Server) -> Running:
    """The suite's own server, with its SAE."""
    return Running(RemoteServer(server.url), server.process.pid, ready_seconds=1.0)


@pytest.fixture
def generate(tiny_model: Path) -> Iterator[Generate]:
    threads = torch.get_num_threads()
    yield Generate(tiny_model)
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_overhead_is_measured_and_rendered(plain: Running, tapped: Running, tmp_path: Path) -> None:
    """The tiny SAE has no feature 1643: sections that need it are reported as not run."""
    record = Record(tmp_path / "overhead.json", "one block")
    overhead.measure(record, plain, tapped, argparse.Namespace(blocks=1, tokens=16, minutes=0.1))
    saved = json.loads((tmp_path / "overhead.json").read_text())
    assert list(saved["modes"]) == list(overhead.MODES)
    assert "feature 1643 is not in 0..95" in saved["modes"]["add-1"]["not_run"]
    for mode in ("attached-idle", "full-width"):
        assert saved["modes"][mode]["blocks"] == 1
        assert saved["modes"][mode]["ratio"] > 0
    assert saved["first_token_ms"]["p50"] > 0
    assert "| full-width |" in page(read(tmp_path))


def test_server_and_generate_write_equally_many_tokens(plain: Running, generate: Generate) -> None:
    prompts = make_prompts(0, 4, SIZES)
    together = readers.together(plain, "tiny-llama", prompts, 6)
    assert together.tokens == generate.write(prompts, 6).tokens


def test_throughput_is_measured_and_rendered(
    plain: Running, tapped: Running, generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "PROMPTS", {"short": SIZES[:1], "mixed": SIZES})
    monkeypatch.setattr(throughput, "AT_ONCE", 2)
    monkeypatch.setattr(throughput, "REQUESTS", {1: 1, 8: 8})
    record = Record(tmp_path / "throughput.json", "one block")
    record.section("starts/off", lambda: {"ready_seconds": plain.ready_seconds, "ready_seconds_without_sae": 1.0})
    given = argparse.Namespace(blocks=1, tokens=4, minutes=0.1)
    throughput.measure(record, {"off": plain, "auto": tapped}, generate, given)
    saved = json.loads((tmp_path / "throughput.json").read_text())
    assert [row["concurrency"] for row in saved["levels"]["off"]] == [1, 8]
    assert saved["against_generate"]["mixed"]["auto"]["ratio"] > 0
    for peak in saved["peak_mb"].values():
        assert peak["engine"] > peak["server"] > 0
    results = read(tmp_path)
    assert "| mixed | fp32 |" in page(results)
    assert "8 at once over `generate` in sequence, short prompts" in summary(results)


def test_missing_peers_are_reported(tiny_model: Path, tmp_path: Path) -> None:
    given = argparse.Namespace(tokens=4, serve_python=None, llama_python=None, saelens_python=None, wheel=None)
    found = peers.peers(given, tiny_model, tmp_path)
    assert found["llama.cpp"].versions() == ""
    assert found["millm"].versions().startswith("millm ")
    for name in ("serve", "serve-cb", "llama.cpp", "saelens"):
        with pytest.raises(CannotStart, match=r"--\w+-python was not given"):
            found[name].measure()


def test_a_failed_start_is_reported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('it broke')"]
    with (
        pytest.raises(CannotStart, match="the server did not start: it broke"),
        servers.serving(command, tmp_path / "log"),
    ):
        pass


@pytest.mark.slow
def test_ready_includes_the_attached_sae(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> None:
    with servers.millm(tiny_model, tmp_path / "home", "--sae", str(tiny_sae)) as running:
        knob = {"steering": {"features": [{"index": 3, "strength": 6}]}}
        (body,) = readers.bodies("tiny-llama", ["One."], 4, knob)
        receipt = time_request(running.remote, body).receipt
    assert receipt is not None
    assert receipt.steering
    assert running.ready_seconds > 0.5


def test_a_server_stops_with_its_block(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-u",
        "-c",
        "import sys, http.server as h; h.test(h.SimpleHTTPRequestHandler, port=int(sys.argv[2]), bind='127.0.0.1')",
    ]
    with servers.serving(command, tmp_path / "log", is_ready=lambda _, log: "Serving HTTP" in log) as running:
        assert httpx.get(running.remote.url, trust_env=False).is_success
        assert running.peak_mb()["server"] > 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.remote.url, trust_env=False)


def test_each_benchmark_documents_its_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "--help"], capture_output=True, text=True, check=True
    )
    assert "python -m benchmarks.overhead [--blocks" in done.stdout
