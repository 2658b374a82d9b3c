"""The builder's pip and npm configuration, as secrets of the build: a mirror, a proxy or a local folder works.

Files on this disk that the configuration names are mounted under /run/installers; none of them is part of the image.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.image.buildah import Given

SEEN = "/run/installers"


@dataclass
class Shown:
    """This machine's files and folders that the build sees, by their places there."""

    copies: Path
    """A folder for copies of single files."""
    folders: dict[Path, str] = field(default_factory=dict)

    def rewritten(self, value: str) -> str:
        """The value with each path in it as the build sees it."""
        return " ".join(self._seen(word) for word in value.split())

    def _seen(self, word: str) -> str:
        scheme, path = ("file://", Path(word[7:])) if word.startswith("file://") else ("", Path(word))
        if not path.is_absolute() or not path.exists():
            return word
        if path.is_file():
            copy = self.copies / f"{len(list(self.copies.iterdir()))}-{path.name}"
            shutil.copy(path, copy)
            return f"{scheme}{SEEN}/files/{copy.name}"
        return f"{scheme}{self._folder(path.parent if scheme else path)}{f'/{path.name}' if scheme else ''}"

    def _folder(self, folder: Path) -> str:
        """An index refers to files beside it, so the folder around it is shown."""
        return self.folders.setdefault(folder, f"{SEEN}/{len(self.folders)}")


@contextmanager
def installers(folder: Path) -> Iterator[Given]:
    """Written into `folder`, which is gone afterwards."""
    copies = folder / "files"
    copies.mkdir(parents=True)
    shown = Shown(copies, {copies: f"{SEEN}/files"})
    secrets = {"pip": folder / "pip.conf", "npm": folder / "npmrc"}
    with secrets["pip"].open("w", encoding="utf-8") as file:
        _pip(shown).write(file)
    secrets["npm"].write_text(_npm(shown), encoding="utf-8")
    try:
        yield Given(secrets, shown.folders)
    finally:
        shutil.rmtree(folder)


def _pip(shown: Shown) -> RawConfigParser:
    """What holds for pip here, of its files and of its variables, which win."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    config = RawConfigParser()
    config.add_section("global")
    settings = [line.partition("=") for line in done.stdout.splitlines() if "=" in line]
    for name, _, value in sorted(settings, key=lambda setting: setting[0].startswith(":env:")):
        section, _, option = name.replace(":env:.", "global.").rpartition(".")
        if not config.has_section(section):
            config.add_section(section)
        config.set(section, option, shown.rewritten(value.strip("'")))
    return config


def _npm(shown: Shown) -> str:
    """The registry and its certificates; empty without npm."""
    if not shutil.which("npm"):
        return ""
    done = subprocess.run(["npm", "config", "list", "--json"], capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)
    options = {name: config.get(name) for name in ("registry", "cafile", "proxy", "https-proxy")}
    return "".join(f"{name}={shown.rewritten(value)}\n" for name, value in options.items() if value)
