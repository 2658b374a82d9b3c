"""buildah, as far as it is needed here: with storage of its own, no daemon, no registry, and no cgroups or overlays."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.image.config import ImageConfig


@dataclass(frozen=True)
class Given:
    """What the build may use and the image does not hold."""

    secrets: dict[str, Path]
    """By the ids that the Dockerfile mounts them by."""
    folders: dict[Path, str]
    """Folders of this machine → where the build sees them."""


NOTHING = Given({}, {})


class Buildah:
    def __init__(self, storage: Path, state: Path) -> None:
        self._options = ["--root", str(storage), "--runroot", str(state), "--storage-driver", "vfs"]

    def build(self, context: Path, name: str, arguments: dict[str, str], given: Given = NOTHING) -> None:
        """`format docker` preserves HEALTHCHECK; `pull never` fails if a FROM is not local."""
        self._run(
            "build", "--isolation", "chroot", "--format", "docker", "--pull-never", "--tag", name,
            *(f"--build-arg={argument}={value}" for argument, value in arguments.items()),
            *(f"--secret=id={secret},src={file}" for secret, file in given.secrets.items()),
            *(f"--volume={folder}:{seen}:ro" for folder, seen in given.folders.items()),
            str(context),
        )  # fmt: skip

    def config(self, image: str) -> ImageConfig:
        inspected: dict[str, Any] = json.loads(self._run("inspect", "--type", "image", image))
        return ImageConfig(inspected["Docker"]["config"])

    def mounted(self, image: str) -> Path:
        """The root of a new container of `image`."""
        container = self._run("from", "--pull-never", image).strip()
        return Path(self._run("mount", container).strip())

    def _run(self, *command: str) -> str:
        """What it said on stdout; the rest is shown. Raises SystemExit."""
        done = subprocess.run(["buildah", *self._options, *command], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stdout[-8000:]}\nbuildah {command[0]} ended with {done.returncode}")
        return done.stdout
