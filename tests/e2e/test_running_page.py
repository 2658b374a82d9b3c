"""docs/operations/running.md: commands, example log line, and metrics."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from millm import __version__
from millm.logs.redaction import REDACTED
from tests.cli.terminal import answers, free_port
from tests.docs.blocks import EXAMPLE_URL, blocks, commands
from tests.e2e.metrics_text import Metrics
from tests.fixtures.process import environment
from tools.make_docs import DOCS

pytestmark = pytest.mark.slow

PAGE = DOCS / "operations" / "running.md"
STOPS = 'kill -TERM "$(cat ~/.cache/millm/server.lock)"'


@dataclass
class Shell:
    """Runs the page's commands with `home` as HOME."""

    home: Path
    port: str = field(default_factory=free_port)
    lines: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        ours = environment(self.home, port=self.port)
        del ours["MILLM_HOME"]
        return {**ours, "HOME": str(self.home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(self, command: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], env=self.variables, cwd=self.home, stderr=subprocess.PIPE, text=True
        )
        threading.Thread(target=lambda: self.lines.extend(process.stderr or ()), daemon=True).start()
        while not answers(f"{self.url}/healthz"):
            assert process.poll() is None, self.lines
            time.sleep(0.1)
        return process

    def run(self, command: str) -> str:
        mine = command.replace(EXAMPLE_URL, self.url)
        return subprocess.run(
            ["bash", "-c", mine], env=self.variables, cwd=self.home, check=True, capture_output=True, text=True
        ).stdout

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Command → output, with a server that two of the commands start and stop."""
    first, *others = commands(PAGE)
    shell = Shell(tmp_path_factory.mktemp("home"))
    process = shell.start(first)
    assert process.stderr
    try:
        httpx.get(f"{shell.url}/v1/models", trust_env=False)
        results = {command: shell.run(command) for command in sorted(others, key=lambda command: command == STOPS)}
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    yield {**results, first: "".join(shell.lines)}
    process.stderr.close()


def test_documented_commands_work(outputs: dict[str, str]) -> None:
    health, ready, scraped = (outputs[f"curl -s {EXAMPLE_URL}/{name}"] for name in ("healthz", "readyz", "metrics"))
    assert json.loads(health) == {"status": "ok"}
    assert json.loads(ready)["status"] in ("loading", "empty")
    assert Metrics.of(scraped).labels_of("millm_build_info") == [{"version": __version__}]
    assert outputs[STOPS] == ""


def test_the_log_matches_the_docs(outputs: dict[str, str]) -> None:
    lines = [json.loads(line) for line in outputs[commands(PAGE)[0]].splitlines()]
    assert lines[-1]["event"] == "server.stopped"
    (example,) = (json.loads(block) for block in blocks(PAGE, "json"))
    results = next(line for line in lines if line["event"] == example["event"])
    assert set(results) <= set(example)
    assert [name for name in example if name in results] == list(results)


def test_metrics_and_codes_in_the_docs_exist(outputs: dict[str, str]) -> None:
    now = Metrics.of(outputs[f"curl -s {EXAMPLE_URL}/metrics"])
    families = set(now.kinds) | {f"{name}_{end}" for name in now.kinds for end in ("bucket", "count", "sum")}
    page = PAGE.read_text("utf-8")
    named = set(re.findall(r"\bmillm_\w+", page))
    assert named <= families
    assert set(now.kinds) <= named, "the table has them all"
    assert REDACTED in page
