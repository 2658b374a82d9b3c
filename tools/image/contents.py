"""What is in the image, and what must not be: one torch, one demo, and nothing of the build."""

import os
import subprocess
from pathlib import Path

from tools.image.record import Record

LEFT_OVER = ("build", "root/.npmrc", "etc/pip.conf", "run/installers", "opt/venv/bin/node", "root/.npm", "root/.cache")
VERSIONS = (
    "import platform as p, torch, transformers; print(p.python_version(), torch.__version__, transformers.__version__)"
)


def check_contents(root: Path, record: Record) -> None:
    record.check("left over from the build", [path for path in LEFT_OVER if _holds_something(root / path)], [])
    record.check(
        "the page is built in", len(list(root.glob("opt/venv/lib/python3*/site-packages/millm/web/index.html"))), 1
    )
    record.check("/data belongs to", (os.stat(root / "data").st_uid, os.stat(root / "data").st_gid), (10001, 10001))
    done = subprocess.run(
        ["chroot", str(root), "/opt/venv/bin/python", "-c", VERSIONS], capture_output=True, text=True, check=True
    )
    record.add("      Python {}, torch {}, transformers {}".format(*done.stdout.split()))
    sizes = {path: _size(root / path) for path in ("", "opt/venv", "opt/demo")}
    record.add(f"      {sizes['']:.0f} MB unpacked: venv {sizes['opt/venv']:.0f} MB, demo {sizes['opt/demo']:.0f} MB")
    site = next(root.glob("opt/venv/lib/python3*/site-packages"))
    largest = sorted(((_size(path), path.name) for path in site.iterdir()), reverse=True)[:5]
    record.add("      largest packages: " + ", ".join(f"{name} {size:.0f} MB" for size, name in largest))


def _holds_something(path: Path) -> bool:
    """Where something was mounted while it was built, an empty file or folder may stay."""
    files = path.rglob("*") if path.is_dir() else [path]
    return any(file.is_file() and file.stat().st_size for file in files)


def _size(path: Path) -> float:
    """MB on the disk."""
    done = subprocess.run(["du", "-sxk", str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0]) * 1024 / 1e6
