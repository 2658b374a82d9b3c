"""`millm sweep`: the server's figures, a table within 80 columns, and Ctrl+C."""

import json
import signal
import time
from pathlib import Path

import httpx
import pytest

from millm.cli.sweep import PartialSweep, apply_event
from millm.errors import MillmError
from tests.cli.terminal import TIMEOUT_SECONDS, millm, started
from tests.fixtures.process import Server

PROMPT = "Tell me about the sea."


def test_table_and_json_match_the_server(server: Server, tmp_path: Path) -> None:
    arguments = (PROMPT, "--profile", "push", "--scales", "0,1,2", "--tokens", "8", "--url", server.url)
    ran = millm("sweep", *arguments, home=tmp_path, COLUMNS="80")
    assert ran.code == 0, ran.err
    head, *rows = ran.out.splitlines()[:4]
    assert head.split() == ["STRENGTH", "PERPLEXITY", "KL", "REPEATS", "TOKENS"]
    report = json.loads(millm("sweep", *arguments, "--json", home=tmp_path).out)
    body = {"messages": [{"role": "user", "content": PROMPT}], "profile": "push", "scales": [0, 1, 2], "max_tokens": 8}
    expected = httpx.post(f"{server.url}/api/sweep", json={**body, "stream": False}, timeout=30).json()
    assert [point["text"] for point in report["points"]] == [point["text"] for point in expected["points"]]
    for row, means in zip(rows, report["summary"], strict=True):
        assert f"{means['perplexity']:,.1f}" in row
        assert f"{means['kl']:.2f}" in row
    assert max(map(len, ran.out.splitlines()[:4])) <= 80


def test_ctrl_c_prints_the_points_so_far(server: Server, tmp_path: Path) -> None:
    many = ",".join(str(place / 10) for place in range(20))
    arguments = (PROMPT, "--profile", "push", "--scales", many, "--seeds", "1,2,3,4,5,6,7,8", "--tokens", "200")
    with started("sweep", *arguments, "--json", "--url", server.url, home=tmp_path) as process:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not httpx.get(f"{server.url}/api/status").json()["in_flight"] and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 130, err
    assert json.loads(out)["summary"] == []
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scales", "one,two"), "give numbers"),
        (("--scales", "nan,1"), "give numbers"),
        (("--seeds", "1.5"), "whole numbers"),
        (("--profile", "nope"), "nope"),
        ((), "nothing steers here"),
    ],
)
def test_invalid_sweeps_are_one_error_line(
    server: Server, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = millm("sweep", PROMPT, *arguments, "--url", server.url, home=tmp_path)
    assert ran.code == 1
    assert message in ran.last_line


def test_foreign_events_are_rejected() -> None:
    with pytest.raises(MillmError, match="no part of a sweep"):
        apply_event(PartialSweep(), b'{"text": "only"}')
    with pytest.raises(MillmError, match="gone"):
        apply_event(PartialSweep(), b'{"error": {"message": "gone", "code": "engine_crashed"}}')
