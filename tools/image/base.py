"""A small Debian without Python, as the base image: the Dockerfile has to install Python as it does on NVIDIA's."""

import subprocess
from pathlib import Path

from tools.image.buildah import Buildah

NAME = "localhost/millm-test-base"


def make_base(buildah: Buildah, folder: Path, suite: str) -> str:
    """The image's name."""
    context = folder / "base"
    context.mkdir()
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite, str(context / "root.tar")], check=True)
    (context / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n", encoding="utf-8")
    buildah.build(context, NAME, {})
    (context / "root.tar").unlink()
    return NAME
