"""`kill -9` of the server during a download, thirty times: finished files stay, partial ones do not."""

import json
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file

from tests.cli.library_home import LibraryHome, library_home
from tests.cli.terminal import answers, children_of, started, wait_until
from tests.fixtures.fakehub import serving
from tests.fixtures.hubfiles import etag_of

pytestmark = [pytest.mark.crashes, pytest.mark.timeout(400)]

NAME = "tiny/large"
FILES = 20
BYTES = 10_000_000
KILLS = 30
FAST, SLOW = 8_000_000, 1_000_000
"""Bytes a second of each of four connections."""


@dataclass
class Story:
    """Servers one after another over the same home and cache."""

    there: LibraryHome
    lives: ExitStack
    """Stops remaining processes at the end."""
    now: "subprocess.Popen[str] | None" = None
    took: list[float] = field(default_factory=list)
    """Seconds from the command to a server that answers."""
    brought: list[tuple[set[str], list[str]]] = field(default_factory=list)
    """For each server: hashes of files finished before it, and the files it requested."""

    def ask(self, method: str, address: str, body: object = None) -> Any:
        url = f"http://127.0.0.1:{self.there.port}{address}"
        answer = httpx.request(method, url, json=body, timeout=30, trust_env=False)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def start(self) -> None:
        """The previous server is gone with its processes, and its partial files are removed."""
        begun, before = time.monotonic(), self.now
        self.now = process = self.lives.enter_context(
            started("serve", home=self.there.home, **self.there.variables, MILLM_DOWNLOAD_RESERVE_BYTES="0")
        )
        wait_until(lambda: answers(f"http://127.0.0.1:{self.there.port}/api/jobs"), process)
        self.took.append(time.monotonic() - begun)
        assert self.half() == []
        if before:
            wait_until_alone(before)
        self.there.hub.forget()

    def go_on(self) -> str:
        """The interrupted job, the only one."""
        jobs = self.ask("GET", "/api/jobs")["jobs"]
        if not jobs:
            return str(self.ask("POST", "/api/models", {"id": NAME})["id"])
        assert [job["state"] for job in jobs] == ["interrupted"]
        return str(self.ask("POST", f"/api/jobs/{jobs[0]['id']}/resume")["id"])

    def kill(self) -> None:
        assert self.now
        assert self.now.poll() is None
        self.now.kill()
        self.now.wait()

    def finished(self) -> set[str]:
        """Hashes of complete files in the cache."""
        return {path.name for path in self._blobs() if "." not in path.name}

    def half(self) -> list[str]:
        """Partial files, which must not exist after a download."""
        return [path.name for path in self._blobs() if path.name.endswith(".incomplete") or path.name[:4] == "tmp_"]

    def fetched_again(self) -> list[str]:
        """Files that were requested again although complete."""
        of = {f"{NAME}/{path.name}": etag_of(path) for path in (self.there.hub.root / NAME).iterdir()}
        return [path for had, paths in self.brought for path in paths if of[path] in had]

    def _blobs(self) -> list[Path]:
        return list((self.there.folder / "cache" / "hub").glob("models--*/blobs/*"))


def wait_until_alone(process: "subprocess.Popen[str]") -> None:
    """Its child processes end with it, at the latest after their imports."""
    deadline = time.monotonic() + 15
    while left := children_of(process):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def write_large(folder: Path) -> None:
    """A model of 200 MB in twenty files."""
    folder.mkdir(parents=True)
    names = {f"part.{number}": f"model-{number:05}-of-{FILES:05}.safetensors" for number in range(1, FILES + 1)}
    for number, (tensor, name) in enumerate(names.items()):
        save_file({tensor: torch.full((BYTES // 4,), float(number))}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))


def lives_and_dies(story: Story, seconds: float) -> int:
    """The number of partial files afterwards."""
    story.start()
    had = story.finished()
    story.there.hub.speed = FAST if len(had) < FILES - 4 else SLOW
    story.go_on()
    time.sleep(seconds)
    story.kill()
    story.brought.append((had, list(story.there.hub.downloaded)))
    return len(story.half())


def brings_it_home(story: Story) -> None:
    """The last server, which is not killed."""
    story.start()
    had = story.finished()
    story.there.hub.speed = None
    job = story.go_on()
    assert story.now
    wait_until(lambda: story.ask("GET", f"/api/jobs/{job}")["state"] in ("installed", "failed"), story.now)
    story.brought.append((had, list(story.there.hub.downloaded)))


def test_thirty_kills_during_a_download(tmp_path: Path) -> None:
    chance = random.Random()
    write_large(tmp_path / "hub" / NAME)
    with serving(tmp_path / "hub") as hub, ExitStack() as lives:
        story = Story(library_home(hub, tmp_path), lives)
        half = sum(lives_and_dies(story, chance.uniform(0, 3)) for _ in range(KILLS))
        brings_it_home(story)
        entry = story.ask("GET", f"/api/models/{NAME}")
        story.kill()
    assert (entry["state"], entry["is_verified"]) == ("whole", True)
    assert (story.half(), story.fetched_again()) == ([], [])
    assert contents(story.there.folder / "cache") == contents(hub.root)
    assert half > KILLS
    assert len({len(had) for had, _ in story.brought}) > 2
    answered = sorted(story.took)[KILLS // 2]
    sys.stdout.write(f"\n{half} half files in {KILLS} deaths; a server answered after {answered:.1f} s (median)\n")


def contents(folder: Path) -> dict[str, str]:
    """Hashes of the model's files, by name."""
    return {path.name: etag_of(path) for path in folder.rglob("*") if path.name.endswith((".safetensors", ".json"))}
