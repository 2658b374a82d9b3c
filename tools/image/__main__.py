"""Build the image and run it, on a machine without a Docker daemon (`make image-test`), and write the log.

python -m tools.image                       # as root, with buildah and mmdebstrap; torch from pip's own index
python -m tools.image --torch-index cpu     # if that index has only torch with CUDA

In order: a Debian for the base image, the Dockerfile, the image's configuration, and a server in the image that gives a
steered answer without a network, on a read-only root.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.image.base import make_base
from tools.image.buildah import Buildah
from tools.image.config import check_config
from tools.image.contents import check_contents
from tools.image.installers import installers
from tools.image.record import Record

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs" / "verification" / "image.txt"
IMAGE = "localhost/millm-test"
TOOLS = ("buildah", "mmdebstrap", "unshare", "setpriv", "chroot", "ip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="bookworm", help="the Debian of the base image")
    parser.add_argument("--torch-index", default="", help="the Dockerfile's TORCH_INDEX")
    parser.add_argument("--record", type=Path, default=RECORD, help="where to write what was seen")
    options = parser.parse_args()
    _require_tools()
    with tempfile.TemporaryDirectory(prefix="millm-image-", dir="/var/tmp") as folder:
        record = _verify(Path(folder), options.suite, options.torch_index)
    options.record.parent.mkdir(exist_ok=True)
    options.record.write_text(record.text(), encoding="utf-8")


def _require_tools() -> None:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        raise SystemExit(f"this needs root, and {', '.join(missing or TOOLS)} (Debian: buildah mmdebstrap iproute2)")


def _verify(folder: Path, suite: str, torch_index: str) -> Record:
    record = Record()
    buildah = Buildah(folder / "storage", folder / "run")
    record.tools(suite)
    with record.step(f"base image of Debian {suite}, without Python"):
        base = make_base(buildah, folder, suite)
    with record.step("buildah build, WITH_DEMO=1, nothing pulled"), installers(folder / "installers") as given:
        arguments = {"BASE_IMAGE": base, "TORCH_INDEX": torch_index, "WITH_DEMO": "1"}
        buildah.build(ROOT, IMAGE, arguments, given)
    config = buildah.config(IMAGE)
    check_config(config, record)
    with record.step("container made"):
        root = buildah.mounted(IMAGE)
    check_contents(root, record)
    home = folder / "home"
    home.mkdir()
    _serve(root, home, config.as_json(), record)
    return record


def _serve(root: Path, home: Path, config: str, record: Record) -> None:
    """In namespaces of its own: mounts that end with it, and a network that is nothing but loopback."""
    inside = [sys.executable, "-m", "tools.image.inside", str(root), str(home)]
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--", *inside], input=config, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    record.add(done.stdout)
    if done.returncode:
        raise SystemExit("the container did not do what it should; see above")


if __name__ == "__main__":
    main()
