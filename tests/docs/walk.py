"""Follows a page as a reader does: writes its files, runs commands and Python in order, compares what is printed.

What differs from the page: host and port of the server, `hf_...` for a token, and `make TARGET`, which is only planned.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from millm.profiles.schema import Profile
from tests.docs.blocks import EXAMPLE_URL, ROOT, SHELL, Block, blocks_of
from tests.docs.notrun import is_listed
from tests.fixtures.fakehub import TOKEN
from tests.fixtures.process import Server, environment, running

SECONDS = 240
"""For a command, on a machine that is busy with other things."""
_SERVES = re.compile(r"(?:\w+=\S+ )*millm (serve|demo)\b")
_DRIVER = """
import json, sys
scope = {"__name__": "__main__"}
for line in sys.stdin:
    exec(compile(json.loads(line), "the page's Python", "exec"), scope)
    print("\\0", flush=True)
"""


@dataclass
class Walk:
    """One reader on one page. `server` is there already, or the page starts it."""

    folder: Path
    variables: dict[str, str]
    server: Server | None = None
    exits: ExitStack = field(default_factory=ExitStack)
    said: str = ""
    """What was printed since something was compared."""
    interpreter: Path = Path(sys.executable)
    """Runs the page's Python."""
    python: subprocess.Popen[str] | None = None

    def follow(self, page: str) -> None:
        self.put_commands_on_the_path()
        (self.folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        with self.exits:
            for block in blocks_of(ROOT / page):
                if not is_listed(page, block.text):
                    self.take(block)

    def take(self, block: Block) -> None:
        if block.title == "prints":
            _compare(self.said, block.text)
            self.said = ""
        elif block.title:
            self.write(block)
        elif block.language in SHELL:
            self.said += "".join(self.run(command) for command in block.commands if not is_listed(block.page, command))
        elif block.language == "python":
            self.said += self.execute(block.text)
        elif block.language == "json":
            Profile.model_validate_json(block.text)

    def write(self, block: Block) -> None:
        """A file beside the commands that use it."""
        text = self.here(block.text)
        {"json": json.loads, "yaml": yaml.safe_load}.get(block.language, str)(text)
        path = self.folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, command: str) -> str:
        if command.startswith("make "):
            return _done(f"make --dry-run {command.removeprefix('make ')}", ROOT, os.environ)
        if command.startswith("export "):
            self.variables |= dict(part.split("=", 1) for part in shlex.split(self.here(command))[1:])
            return ""
        if _SERVES.match(command):
            return self.serve(shlex.split(command))
        return _done(self.here(command), self.folder, self.environment)

    def serve(self, words: list[str]) -> str:
        """In place of the server that the page had started before; the demo is there."""
        if "demo" in words:
            assert self.server
            return "".join(self.server.lines)
        self.exits.close()
        at = words.index("millm") + 1
        given = dict(word.split("=", 1) for word in words[: at - 1])
        arguments = [self.here(word) for word in words[at:]]
        started = running(
            *arguments, model="", home=self.folder / "home", variables=self.variables | given, cwd=self.folder
        )
        self.server = self.exits.enter_context(started)
        return "".join(self.server.lines)

    def execute(self, code: str) -> str:
        """One interpreter for all Python of the page."""
        if self.python is None or self.python.poll() is not None:
            self.python = subprocess.Popen(
                [self.interpreter, "-c", _DRIVER], cwd=self.folder, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            self.exits.callback(self.python.communicate)
        assert self.python.stdin
        assert self.python.stdout
        self.python.stdin.write(json.dumps(self.here(code)) + "\n")
        self.python.stdin.flush()
        printed = ""
        while not printed.endswith("\0\n"):  # behind what the page printed without a new line
            line = self.python.stdout.readline()
            assert line, f"{code}\n{printed}\n{self.python.communicate()[1]}"
            printed += line
        return printed.removesuffix("\0\n")

    def here(self, text: str) -> str:
        """As it is to be typed on this machine."""
        url = self.server.url if self.server else EXAMPLE_URL
        place = url.removeprefix("http://")
        for shown, actual in (("127.0.0.1:8000", place), ("localhost:8000", place), ("hf_...", TOKEN)):
            text = text.replace(shown, actual)
        return text

    def put_commands_on_the_path(self) -> None:
        """`millm` is the one that is tested; `llm` and `python` are of the page's interpreter."""
        (self.folder / "bin").mkdir()
        python = f'"{self.interpreter}"'
        for name, runs in {
            "millm": f'"{sys.executable}" -m millm',
            "python": python,
            "llm": f"{python} -m llm",
        }.items():
            command = self.folder / "bin" / name
            command.write_text(f'#!/bin/sh\nexec {runs} "$@"\n')
            command.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        port = {"MILLM_PORT": self.server.url.rpartition(":")[2]} if self.server else {}
        paths = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {
            **environment(self.folder / "home"), **self.variables, **port, "PATH": paths,
            "HOME": str(self.folder), "CURL_HOME": str(self.folder), "NO_PROXY": "127.0.0.1",
        }  # fmt: skip


def _done(command: str, folder: Path, variables: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, env=variables, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _compare(said: str, shown: str) -> None:
    """What the page shows is what came; `…` stands for anything."""
    lines = [re.escape(line.rstrip()).replace("…", ".*") for line in shown.strip().splitlines()]
    came = "\n".join(line.rstrip() for line in said.splitlines())
    assert re.search("\n".join(lines), came), f"the page shows\n{shown}\nand what came is\n{said}"
