"""A name on the command line → a folder on disk: a local folder as it is, a Hugging Face id through its cache."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from millm.errors import CannotStart, DownloadFailed
from millm.hub.checkpoint import check_checkpoint, check_sae
from millm.hub.download import Wanted, download

OnProgress = Callable[[str, int, int], None]
"""(stage, bytes done, bytes in all); called a few times a second, and may raise to give up."""

MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt")
"""No pickles and no Python."""
NOT_MODEL_FILES = ("[!1]*/*", "1[!_]*/*", "1_[!P]*/*", "*/*/*", "consolidated*")
"""Folders hold other exports (onnx/, original/), save sentence-transformers' `1_Pooling`; `consolidated` is the same
weights once more."""
SAE_FILES = ("*.safetensors", "*.npz", "*.json", "labels.jsonl")

_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Located:
    name: str
    """What clients call it: the Hugging Face id, or the folder's name."""
    folder: Path
    is_trusted: bool = False
    """Its own Python may run: the operator has named this repository and commit."""


def locate_model(asked: str, token: str | None, on_progress: OnProgress) -> Located:
    """Raises CannotStart (neither a folder nor an id), DownloadFailed or InvalidModel."""
    located = _local(asked, "model") or _model_on_hub(asked, token, on_progress)
    check_checkpoint(located.folder)
    return located


def locate_sae(asked: str, token: str | None, on_progress: OnProgress) -> Located:
    """A folder, or `owner/repo/path/inside` (Gemma Scope: `google/gemma-scope-2b-pt-res/layer_20/width_16k/…`).

    Raises CannotStart (neither), DownloadFailed or InvalidSae.
    """
    located = _local(asked, "SAE") or _sae_on_hub(asked, token, on_progress)
    check_sae(located.folder)
    return located


def _local(asked: str, what: str) -> Located | None:
    path = Path(os.path.expanduser(asked))  # which leaves `~stranger` as it is, where Path's own raises
    if path.is_file():
        raise CannotStart(f"{what} {asked!r} is a file; give the folder that holds its files")
    return Located(path.resolve().name, path.resolve()) if asked and path.is_dir() else None


def _model_on_hub(asked: str, token: str | None, on_progress: OnProgress) -> Located:
    repository = _repository(asked, asked, "model")
    wanted = Wanted(repository, MODEL_FILES, NOT_MODEL_FILES)
    return Located(repository, download(wanted, token, on_progress))


def _sae_on_hub(asked: str, token: str | None, on_progress: OnProgress) -> Located:
    parts = asked.rstrip("/").split("/")
    repository, inside = _repository("/".join(parts[:2]), asked, "SAE"), "/".join(parts[2:])
    if ".." in parts:
        raise CannotStart(f"SAE {asked!r}: a path inside a repository cannot hold '..'")
    prefix = f"{inside}/" if inside else ""
    wanted = Wanted(repository, tuple(f"{prefix}{name}" for name in SAE_FILES), (f"{prefix}*/*",))
    folder = download(wanted, token, on_progress) / inside
    if not folder.is_dir():
        raise DownloadFailed(f"{repository} has no SAE in {inside!r}; look at its files on Hugging Face")
    return Located(asked.rstrip("/"), folder)


def _repository(name: str, asked: str, what: str) -> str:
    if not _REPOSITORY.fullmatch(name):
        raise CannotStart(f"{what} {asked!r} is neither a folder here nor a Hugging Face id (owner/name)")
    return name
