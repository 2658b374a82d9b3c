"""A folder as a container: a root that is read only, `/tmp` in memory, `/data` outside, and no rights to give away."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.image.config import ImageConfig


@dataclass(frozen=True)
class Container:
    root: Path
    config: ImageConfig

    def close(self, home: Path) -> None:
        """Mount what Docker would; `home` becomes /data as an empty volume does, with the owner of what it covers."""
        covered = (self.root / "data").stat()
        os.chown(home, covered.st_uid, covered.st_gid)
        root = str(self.root)
        for mount in (
            ["--make-rprivate", "/"],
            ["--bind", root, root],
            ["--bind", str(home), f"{root}/data"],
            ["-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/tmp"],
            ["-t", "proc", "proc", f"{root}/proc"],
            ["--rbind", "/sys", f"{root}/sys"],
            ["--rbind", "/dev", f"{root}/dev"],
            ["-o", "remount,bind,ro", root],
        ):
            subprocess.run(["mount", *mount], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def refuses_a_file_at(self, path: str) -> bool:
        touched = subprocess.run(["chroot", str(self.root), "touch", path], capture_output=True, text=True)
        return "Read-only file system" in touched.stderr

    def start(self, command: Sequence[str], variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """The image's entrypoint; each of these programs becomes the next, so that the process is the server's own."""
        words = self._words([*self.config.entrypoint, *command], variables)
        return subprocess.Popen(words)

    def run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self._words(command, {}), capture_output=True, text=True)

    def _words(self, command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
        user, group = self.config.user.split(":")
        rights = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        assignments = [f"{name}={value}" for name, value in {**self.config.variables, **variables}.items()]
        return [
            "chroot", str(self.root),
            "setpriv", f"--reuid={user}", f"--regid={group}", *rights,
            "env", "--ignore-environment", f"--chdir={self.config.attributes['WorkingDir']}", *assignments,
            *command,
        ]  # fmt: skip
