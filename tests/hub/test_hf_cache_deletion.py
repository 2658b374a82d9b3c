"""Deletion frees the blobs that no other entry uses, and completes interrupted deletions."""

from pathlib import Path

import pytest

from millm.errors import Conflict, ModelNotFound, SaeNotFound
from millm.hub import hf_cache
from millm.hub import hf_cache as hub_cache
from millm.hub.jobs import DownloadSpec
from millm.sae.formats import canonicalise
from tests.fixtures.hfcache import ONE, THREE, TWO, put, used
from tests.hub.shelf import Shelf


@pytest.fixture
def two_revisions(shelf: Shelf) -> Shelf:
    """Two revisions that share all but one file of 5 bytes."""
    put(shelf.cache, "acme/tiny", {**shelf.model, "README.md": b"first"}, commit=ONE, ref="v1")
    put(shelf.cache, "acme/tiny", {**shelf.model, "README.md": b"other"}, commit=TWO)
    return shelf


def test_shared_blobs_survive_a_revision(two_revisions: Shelf) -> None:
    before = used(two_revisions.cache)
    freed = two_revisions.library.delete_model("acme/tiny@v1")
    assert (freed.bytes, freed.kept) == (5, sum(map(len, two_revisions.model.values())))
    assert before - used(two_revisions.cache) == 5 + len(ONE)  # and the ref
    assert two_revisions.library.model("acme/tiny").state == "whole"
    assert two_revisions.library.model("acme/tiny").shared == 0


def test_last_revision_removes_the_repository(two_revisions: Shelf) -> None:
    (two_revisions.cache / "models--acme--tiny" / "blobs" / "abc.incomplete").write_bytes(b"half")
    two_revisions.library.delete_model("acme/tiny@v1")
    blobs = used(two_revisions.cache / "models--acme--tiny" / "blobs")
    assert two_revisions.library.delete_model("acme/tiny").bytes == blobs
    assert list(two_revisions.cache.iterdir()) == []
    with pytest.raises(ModelNotFound):
        two_revisions.library.model("acme/tiny")


def test_sae_files_shared_with_others_survive(shelf: Shelf) -> None:
    """The configurations are equal byte for byte."""
    other = {**shelf.sae, "sae_weights.safetensors": shelf.sae["sae_weights.safetensors"][:-4] + b"\0\0\0\0"}
    put(shelf.cache, "acme/lens", {f"a/b/{name}": content for name, content in shelf.sae.items()})
    put(shelf.cache, "acme/lens", {f"a/{name}": content for name, content in other.items()})
    shelf.install("sae", "acme/lens", ONE, "a/b", {})
    before = used(shelf.cache)
    freed = shelf.library.delete_sae("acme/lens/a/b")
    assert freed.bytes == before - used(shelf.cache) == len(shelf.sae["sae_weights.safetensors"])
    assert freed.kept == len(shelf.sae["cfg.json"])
    assert shelf.library.sae("acme/lens/a").state == "whole"
    assert shelf.database.read("SELECT * FROM installed") == []
    shelf.library.delete_sae("acme/lens/a")
    assert list(shelf.cache.iterdir()) == []


def test_canonical_copy_is_removed_with_the_sae(shelf: Shelf) -> None:
    snapshot = put(shelf.cache, "acme/lens", shelf.sae)
    canonical = canonicalise(snapshot, shelf.home.canonical_saes)
    before = used(shelf.cache) + used(shelf.home.canonical_saes)
    freed = shelf.library.delete_sae("acme/lens")
    assert not canonical.exists()
    assert freed.bytes == before - used(shelf.home.canonical_saes) - len(ONE)


def test_builtin_entries_cannot_be_deleted(shelf: Shelf, tiny_model: Path) -> None:
    with pytest.raises(Conflict, match="ships with miLLM"):
        shelf.library.delete_model("tiny")
    with pytest.raises(Conflict, match="ships with miLLM"):
        shelf.library.delete_sae("tiny-sae")
    with pytest.raises(SaeNotFound):
        shelf.library.delete_sae("tiny")
    assert (tiny_model / "config.json").is_file()


def test_entry_with_an_active_job_cannot_be_deleted(shelf: Shelf) -> None:
    put(shelf.cache, "acme/tiny", shelf.model)
    shelf.job(DownloadSpec(kind="model", repository="acme/tiny"), ONE, "running")
    with pytest.raises(Conflict, match="cancel that first"):
        shelf.library.delete_model("acme/tiny")
    assert shelf.library.model("acme/tiny").size == sum(map(len, shelf.model.values()))


@pytest.mark.parametrize("reached", ["moved", "some blobs gone", "all blobs gone"])
def test_interrupted_deletion_is_completed_by_the_next(reached: str, two_revisions: Shelf) -> None:
    put(two_revisions.cache, "acme/else", two_revisions.model)
    home = two_revisions.cache / "models--acme--tiny"
    shared_bytes = used(home / "blobs") - 5
    (home / "refs" / "v1").unlink()
    (home / hub_cache.TRASH_FOLDER).mkdir()
    (home / "snapshots" / ONE).rename(home / hub_cache.TRASH_FOLDER / ONE)
    if reached != "moved":
        (home / hub_cache.TRASH_FOLDER / ONE / "README.md").resolve().unlink()
    if reached == "all blobs gone":
        (home / hub_cache.TRASH_FOLDER / ONE / "README.md").unlink()
    assert [entry.id for entry in two_revisions.library.models()] == ["acme/else", "acme/tiny", "tiny"]
    two_revisions.library.delete_model("acme/else")
    assert used(home / "blobs") == shared_bytes
    assert two_revisions.library.model("acme/tiny").state == "whole"
    assert not (home / hub_cache.TRASH_FOLDER).exists()


def test_partly_deleted_sae_can_be_deleted_again(shelf: Shelf) -> None:
    """The rest is listed, and can be deleted again."""
    put(shelf.cache, "acme/lens", {f"a/{name}": content for name, content in shelf.sae.items()})
    home = shelf.cache / "models--acme--lens"
    (home / hub_cache.TRASH_FOLDER / ONE / "a").mkdir(parents=True)
    weights = Path("a/sae_weights.safetensors")
    (home / "snapshots" / ONE / weights).rename(home / hub_cache.TRASH_FOLDER / ONE / weights)
    assert shelf.library.sae("acme/lens/a").state == "incomplete"
    shelf.library.delete_sae("acme/lens/a")
    assert used(shelf.cache) == 0


def test_blobs_stay_while_a_revision_is_unreadable(two_revisions: Shelf) -> None:
    broken = two_revisions.cache / "models--acme--tiny" / "snapshots" / THREE
    broken.symlink_to(THREE)
    before = used(two_revisions.cache / "models--acme--tiny" / "blobs")
    assert two_revisions.library.delete_model("acme/tiny@v1").bytes == 0
    assert used(two_revisions.cache / "models--acme--tiny" / "blobs") == before


def test_link_targets_outside_the_cache_stay(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    snapshot = put(shelf.cache, "acme/out", shelf.model)
    (snapshot / "notes.txt").symlink_to(tmp_path / "secret")
    shelf.library.delete_model("acme/out")
    assert (tmp_path / "secret").read_text() == "s"
    assert list(shelf.cache.iterdir()) == []


def test_finish_deletions_without_leftovers_changes_nothing(shelf: Shelf) -> None:
    hf_cache.finish_deletions()
    put(shelf.cache, "acme/tiny", shelf.model)
    before = used(shelf.cache)
    hf_cache.finish_deletions()
    assert used(shelf.cache) == before
