"""Leftovers of killed downloads, revisions, and the cache's folder."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from millm.hub.hf_cache import remove_orphans, resolve_commit, write_ref
from millm.settings import hf_cache_folder

REPOSITORY = "tiny/model"
ETAG = "a" * 64


def write(cache: Path, name: str, content: bytes = b"half") -> Path:
    path = cache / "models--tiny--model" / "blobs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_orphans_are_removed_and_complete_files_stay(tmp_path: Path) -> None:
    complete = write(tmp_path, ETAG)
    orphans = [write(tmp_path, f"{ETAG}.0123abcd.incomplete"), write(tmp_path, "tmp_1234-5678", b"")]
    of_an_older_library = write(tmp_path, f"{ETAG}.incomplete")
    remove_orphans(tmp_path, REPOSITORY)
    assert [path.exists() for path in orphans] == [False, False]
    assert complete.exists()
    assert of_an_older_library.exists()


def test_locked_incomplete_files_stay(tmp_path: Path) -> None:
    unlocked, locked = (
        write(tmp_path, f"{'b' * 40}.00000000.incomplete"),
        write(tmp_path, f"{ETAG}.0123abcd.incomplete"),
    )
    lock = tmp_path / ".locks" / "models--tiny--model" / f"{ETAG}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        remove_orphans(tmp_path, REPOSITORY)
        assert (unlocked.exists(), locked.exists()) == (False, True)
    remove_orphans(tmp_path, REPOSITORY)
    assert not locked.exists()


def test_empty_cache_is_unchanged(tmp_path: Path) -> None:
    remove_orphans(tmp_path, REPOSITORY)
    assert list(tmp_path.iterdir()) == []


def test_revision_resolves_to_the_written_commit(tmp_path: Path) -> None:
    assert resolve_commit(tmp_path, REPOSITORY, "main") is None
    for commit in ("1" * 40, "2" * 40):
        write_ref(tmp_path, REPOSITORY, "refs/pr/1", commit)
        assert resolve_commit(tmp_path, REPOSITORY, "refs/pr/1") == commit
    assert resolve_commit(tmp_path, REPOSITORY, "3" * 40) == "3" * 40
    write_ref(tmp_path, REPOSITORY, "3" * 40, "3" * 40)
    assert [path.name for path in (tmp_path / "models--tiny--model" / "refs").rglob("*") if path.is_file()] == ["1"]


VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.mark.parametrize("variables", [{}, *({name: f"/x/{name}"} for name in VARIABLES), {"HF_HOME": "~/$USER/hf"}])
def test_cache_folder_is_that_of_huggingface_hub(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert str(hf_cache_folder()) == output.strip()
