"""How Hugging Face's cache names things, and what a killed download leaves in it. Does not import huggingface_hub.

models--owner--name/blobs/<etag>                      a file's content
models--owner--name/blobs/<etag>.<8 hex>.incomplete   …while it arrives, under the lock
.locks/models--owner--name/<etag>.lock                of whoever brings it
models--owner--name/snapshots/<commit>/<path>         a link to the content
models--owner--name/refs/<revision>                   a commit
"""

import contextlib
import fcntl
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

_ORPHAN = re.compile(r"(?P<etag>.+)\.[0-9a-f]{8}\.incomplete")
"""`<etag>.incomplete`, without the digits, is of a huggingface_hub before 1.31, which goes on with it."""


def repo_folder_name(repository: str) -> str:
    return f"models--{repository.replace('/', '--')}"


def snapshot_folder(cache: Path, repository: str, commit: str) -> Path:
    return cache / repo_folder_name(repository) / "snapshots" / commit


def resolve_commit(cache: Path, repository: str, revision: str) -> str | None:
    """What a revision stood for when it was last fetched whole; a commit stands for itself."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        return (cache / repo_folder_name(repository) / "refs" / revision).read_text("ascii").strip()
    except FileNotFoundError:
        return None


def write_ref(cache: Path, repository: str, revision: str, commit: str) -> None:
    """At once or not at all; nothing to do for a revision that is a commit."""
    if revision == commit:
        return
    ref = cache / repo_folder_name(repository) / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    fresh = ref.with_name(f".{ref.name}.{uuid.uuid4().hex}")
    fresh.write_text(commit, "ascii")
    fresh.replace(ref)


def remove_orphans(cache: Path, repository: str) -> None:
    """What nobody brings any more, going by the locks: another program that downloads is left alone."""
    blobs = cache / repo_folder_name(repository) / "blobs"
    for path in _list_folder(blobs):
        orphan = _ORPHAN.fullmatch(path.name)
        if orphan is None:
            continue
        with _try_lock(cache / ".locks" / repo_folder_name(repository) / f"{orphan['etag']}.lock") as is_ours:
            if is_ours:
                path.unlink(missing_ok=True)
    for path in _list_folder(blobs):
        if path.name.startswith("tmp_"):  # empty: huggingface_hub reads the umask from it, and lives without
            path.unlink(missing_ok=True)


def _list_folder(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """True while it is held, False when somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
