"""`millm sweep` as it is run: the figures of the server, a table of 80 columns, a clean end."""

import json
import signal
import time
from pathlib import Path

import httpx
import pytest

from millm.cli.sweep import PartialSweep, apply_event
from millm.errors import MillmError
from tests.cli.terminal import PATIENCE, millm, started
from tests.fixtures.process import Server

ASKED = "Tell me about the sea."


def test_it_shows_what_the_server_measured(server: Server, tmp_path: Path) -> None:
    arguments = (ASKED, "--profile", "push", "--scales", "0,1,2", "--tokens", "8", "--url", server.url)
    shown = millm("sweep", *arguments, home=tmp_path, COLUMNS="80")
    assert shown.code == 0, shown.err
    head, *rows = shown.out.splitlines()[:4]
    assert head.split() == ["STRENGTH", "PERPLEXITY", "KL", "REPEATS", "TOKENS"]
    told = json.loads(millm("sweep", *arguments, "--json", home=tmp_path).out)
    body = {"messages": [{"role": "user", "content": ASKED}], "profile": "push", "scales": [0, 1, 2], "max_tokens": 8}
    asked = httpx.post(f"{server.url}/api/sweep", json={**body, "stream": False}, timeout=30).json()
    assert [point["text"] for point in told["points"]] == [point["text"] for point in asked["points"]]
    for row, means in zip(rows, told["summary"], strict=True):
        assert f"{means['perplexity']:,.1f}" in row
        assert f"{means['kl']:.2f}" in row
    assert max(map(len, shown.out.splitlines()[:4])) <= 80


def test_ctrl_c_ends_it_with_what_was_measured(server: Server, tmp_path: Path) -> None:
    many = ",".join(str(place / 10) for place in range(20))
    arguments = (ASKED, "--profile", "push", "--scales", many, "--seeds", "1,2,3,4,5,6,7,8", "--tokens", "200")
    with started("sweep", *arguments, "--json", "--url", server.url, home=tmp_path) as process:
        deadline = time.monotonic() + PATIENCE
        while not httpx.get(f"{server.url}/api/status").json()["in_flight"] and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert json.loads(out)["summary"] == []
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scales", "one,two"), "give numbers"),
        (("--scales", "nan,1"), "give numbers"),
        (("--seeds", "1.5"), "whole numbers"),
        (("--profile", "nope"), "nope"),
        ((), "nothing steers here"),
    ],
)
def test_what_cannot_be_swept_is_one_line(
    server: Server, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    ran = millm("sweep", ASKED, *arguments, "--url", server.url, home=tmp_path)
    assert ran.code == 1
    assert said in ran.last_line


def test_what_is_no_part_of_a_sweep_is_said() -> None:
    with pytest.raises(MillmError, match="no part of a sweep"):
        apply_event(PartialSweep(), b'{"text": "only"}')
    with pytest.raises(MillmError, match="gone"):
        apply_event(PartialSweep(), b'{"error": {"message": "gone", "code": "engine_crashed"}}')
