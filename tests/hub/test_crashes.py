"""Thirty times `kill -9` at any moment of a download: nothing that was finished is lost, nothing half is left."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.terminal import children_of
from tests.hub.fetching import Site

pytestmark = [pytest.mark.crashes, pytest.mark.timeout(180)]

NAME = "tiny/large"
FILES = 20
BYTES = 10_000_000
KILLS = 30
FAST, SLOW = 6_000_000, 1_000_000
"""Bytes a second of each of four connections."""


def started(site: Site) -> "subprocess.Popen[str]":
    """It has cleaned up after the one before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.downloading", str(site.database), NAME],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finished(site: Site) -> set[str]:
    """Hashes of what has its own name in the cache."""
    return {path.name for path in site.cache.glob("models--*/blobs/*") if "." not in path.name}


def hashes(site: Site) -> dict[str, str]:
    """Path at the hub → hash."""
    (row,) = site.installed().values()
    return {f"{NAME}/{file.path}": file.hash for file in row.files}


def wait_until_alone(process: "subprocess.Popen[str]") -> None:
    """What it started ends with it; what was still importing its libraries, when it has."""
    deadline = time.monotonic() + 15
    while left := children_of(process):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def run_and_kill(site: Site, seconds: float) -> int:
    """How many half files that left."""
    with started(site) as process:
        assert site.orphans() == []
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(seconds)
        assert process.poll() is None
        process.kill()
        process.wait()
        wait_until_alone(process)
    return len(site.orphans())


def test_thirty_times(own_site: Site) -> None:
    chance = random.Random()
    for number in range(FILES):
        own_site.write(f"{NAME}/model-{number:05}.safetensors", BYTES, bytes([number + 1]))
    own_site.write(f"{NAME}/config.json")
    half, brought = 0, list[tuple[set[str], list[str]]]()
    for _ in range(KILLS):
        had = finished(own_site)
        own_site.hub.speed = FAST if len(had) < FILES - 4 else SLOW
        half += run_and_kill(own_site, chance.uniform(0, 2.5))
        brought.append((had, list(own_site.hub.downloaded)))
        own_site.hub.forget()
    own_site.hub.speed = None
    had = finished(own_site)
    with started(own_site) as process:
        assert own_site.orphans() == []
        assert process.communicate("go\n", timeout=60)[0] == "installed\n"
    brought.append((had, list(own_site.hub.downloaded)))
    hash_of = hashes(own_site)
    assert len(hash_of) == FILES + 1
    assert [(hash_of[path] in had) for had, paths in brought for path in paths].count(True) == 0
    assert half > KILLS
    assert len({len(had) for had, _ in brought}) > 2
    assert own_site.orphans() == []
    assert Path(own_site.cache / "models--tiny--large" / "refs" / "main").is_file()
