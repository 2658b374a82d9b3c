"""Network faults: a download completes, or fails with a named error and no file that looks complete."""

import asyncio
from contextlib import aclosing
from math import inf
from typing import Any

import pytest
from msgspec.structs import replace

from millm.hub.downloads import Downloads, build_command, run_worker
from millm.hub.jobs import DownloadJob, TransferProgress, WorkerFailure, parse_spec
from millm.settings import Settings
from tests.fixtures.fakehub import TOKEN
from tests.fixtures.repos import GEMMA, LLAMA, SCOPE, SCOPE_SAE
from tests.hub.fetching import Site

SHARD, JSON = "model-00002-of-00003.safetensors", "tokenizer.json"

ONCE: dict[str, dict[str, Any]] = {
    "rst": {"after": 3000},
    "close": {"after": 3000},
    "stall": {"after": 3000},
    "slow": {"speed": 100_000},
    "status": {"status": 500},
    "corrupt": {"after": 3000},
    "wronglen": {},
    "commit": {},
}
FOR_EVER: dict[str, tuple[dict[str, Any], str]] = {
    "status": ({"status": 503}, "download_failed"),
    "corrupt": ({"after": 3000}, "hash_mismatch"),
    "wronglen": ({}, "hash_mismatch"),
    "commit": ({}, "hash_mismatch"),
}


async def fetched(downloads: Downloads, name: str = GEMMA) -> DownloadJob:
    job = await downloads.start(parse_spec(name, "model"))
    return await downloads.wait(job.id)


@pytest.mark.parametrize("file", [SHARD, JSON])
@pytest.mark.parametrize("kind", ONCE)
def test_transient_fault_is_retried(kind: Any, file: str, site: Site) -> None:
    site.hub.fail(file, kind, **ONCE[kind])
    job = site.run(fetched)
    assert (job.state, job.problem) == ("installed", None)
    assert set(site.installed()) == {GEMMA}
    assert (job.done, job.files_done) == (job.total, 8)
    assert site.orphans() == []
    assert site.hub.faults[0].times == 0


@pytest.mark.parametrize("file", [SHARD, JSON])
@pytest.mark.parametrize("kind", FOR_EVER)
def test_lasting_fault_is_named(kind: Any, file: str, site: Site) -> None:
    """And the cache has no wrong file."""
    how, code = FOR_EVER[kind]
    site.hub.fail(file, kind, times=inf, **how)
    job = site.run(fetched)
    assert job.state == "failed"
    assert job.problem is not None
    assert (job.problem.code, "\n" in job.problem.message) == (code, False)
    assert site.installed() == {}
    assert not any(path.endswith(file) for path in site.contents(GEMMA))
    assert site.orphans() == []
    site.hub.forget()
    assert site.run(fetched).state == "installed"
    assert set(site.installed()) == {GEMMA}


def test_reset_resumes_the_file(own_site: Site) -> None:
    """huggingface_hub alone would download the file again."""
    own_site.write_model("tiny/large", 3_000_000)
    own_site.hub.fail("model-00000", "rst", after=2_000_000)
    assert own_site.run(lambda downloads: fetched(downloads, "tiny/large")).state == "installed"
    ranges = [request.range for request in own_site.hub.requests if "cdn" in request.path and request.method == "GET"]
    assert ranges[0] is None
    assert 1_000_000 <= int(str(ranges[1]).removeprefix("bytes=").rstrip("-")) <= 2_000_000
    assert set(own_site.installed()) == {"tiny/large"}


def test_hub_without_ranges_is_supported(own_site: Site) -> None:
    own_site.write_model("tiny/large", 3_000_000)
    own_site.hub.fail("model-00000", "close", after=2_000_000)
    own_site.hub.fail("model-00000", "norange")
    assert own_site.run(lambda downloads: fetched(downloads, "tiny/large")).state == "installed"
    assert [fault.times for fault in own_site.hub.faults] == [0, 0]
    assert set(own_site.installed()) == {"tiny/large"}


def test_endless_resets_fail_the_job(site: Site) -> None:
    """With one try: huggingface_hub itself resumes five times, a second apart."""
    site.hub.fail(SHARD, "rst", times=inf, after=0)
    order = replace(
        build_command("fetch", parse_spec(GEMMA, "model"), Settings.load(download_reserve_bytes=0)), tries=1
    )

    async def last_word() -> object:
        async with aclosing(run_worker(order)) as events:
            return [event async for event in events if not isinstance(event, TransferProgress)]

    (refused,) = asyncio.run(last_word())  # type: ignore[misc]
    assert isinstance(refused, WorkerFailure)
    assert refused.problem.code == "download_failed"


def test_retry_after_is_respected(site: Site) -> None:
    site.hub.fail("/api/models", "status", status=429, retry_after=1)
    job = site.run(fetched)
    assert (job.state, job.attempt) == ("installed", 2)
    waiting = [job for job in site.reported if job.state == "waiting"]
    assert len(waiting) >= 3
    assert all(job.retry_in is not None and 0 <= job.retry_in <= 1 for job in waiting)
    assert {job.problem.code for job in waiting if job.problem} == {"download_failed"}
    assert "status 429" in waiting[0].problem.message  # type: ignore[union-attr]
    assert waiting[-1].updated - waiting[0].updated > 0.5


def refusal(site: Site, name: str = GEMMA, *, revision: str = "main", kind: Any = "model") -> tuple[str, str, object]:
    """(code, message, link) of a failed download; asserts that the cache is empty."""

    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(parse_spec(name, kind, revision))).id)

    job = site.run(story)
    assert (job.state, site.installed(), job.attempt) == ("failed", {}, 1)
    assert job.problem is not None
    assert "\n" not in job.problem.message
    assert not list(site.cache.rglob("*.safetensors"))
    return job.problem.code, job.problem.message, job.problem.link


def test_gated_repository_without_token(site: Site) -> None:
    site.hub.gated = {GEMMA}
    code, message, link = refusal(site)
    assert (code, link) == ("gated_repository", f"{site.hub.url}/{GEMMA}")
    assert "accept its licence on its page" in message
    assert "HF_TOKEN" in message


def test_gated_repository_without_access(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.hub.gated = {GEMMA}
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    code, message, link = refusal(site)
    assert (code, link) == ("gated_repository", f"{site.hub.url}/{GEMMA}")
    assert "the account of this HF_TOKEN has no access" in message


def test_invalid_token(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, message, link = refusal(site)
    assert (code, link) == ("invalid_hf_token", f"{site.hub.url}/settings/tokens")
    assert "hf_wrong" not in message


def test_private_and_unknown_repositories_give_one_message(site: Site) -> None:
    site.hub.private = {GEMMA}
    assert refusal(site)[:1] == refusal(site, "tiny/nothing")[:1] == ("repository_not_found",)
    assert "or a private one; set HF_TOKEN then" in refusal(site)[1]


def test_unknown_revision(site: Site) -> None:
    code, message, _ = refusal(site, revision="v9")
    assert (code, "has no revision 'v9'" in message) == ("repository_not_found", True)


def test_unknown_sae_folder(site: Site) -> None:
    code, message, _ = refusal(site, f"{SCOPE}/layer_99", kind="sae")
    assert (code, "has no SAE in 'layer_99'" in message) == ("repository_not_found", True)


def test_repository_with_pickles_only(own_site: Site) -> None:
    own_site.write("tiny/pickled/config.json")
    own_site.write("tiny/pickled/pytorch_model.bin")
    own_site.write("tiny/pickled/sae/weights.pt")
    assert refusal(own_site, "tiny/pickled")[0] == "invalid_model"
    code, message, _ = refusal(own_site, "tiny/pickled/sae", kind="sae")
    assert (code, "can run code" in message) == ("invalid_sae", True)


def test_listed_paths_outside_the_repository_are_ignored(own_site: Site) -> None:
    """The hub's own list is not trusted."""
    own_site.write_model("tiny/climbing", 1000)
    own_site.write("tiny/climbing/../../escaped.safetensors")
    assert own_site.run(lambda downloads: fetched(downloads, "tiny/climbing")).state == "installed"


def test_offline_mode(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, message, _ = refusal(site)
    assert (code, "HF_HUB_OFFLINE" in message, site.hub.requests) == ("download_failed", True, [])


def test_full_disk_is_reported_before_the_download(site: Site) -> None:
    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(parse_spec(SCOPE_SAE, "sae"))).id)

    job = site.run(story, download_reserve_bytes=10**18)
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "insufficient_disk")
    assert "needs 0.4 MB, 1,000,000,000.0 GB stay free" in job.problem.message
    assert site.hub.downloaded == []


def test_unwritable_cache(site: Site) -> None:
    site.cache.parent.mkdir()
    site.cache.write_text("a file, not a folder")
    job = site.run(lambda downloads: fetched(downloads, LLAMA))
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "download_failed")
    assert "the cache cannot be written" in job.problem.message
    assert str(site.folder) not in job.problem.message


def test_gated_repository_with_access(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is in no row, no message and no environment of a process."""
    site.hub.gated, site.hub.private = {GEMMA}, {GEMMA}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert site.run(fetched).state == "installed"
    assert TOKEN not in repr(site.reported)
    assert TOKEN not in repr(site.rows("SELECT body FROM jobs") + site.rows("SELECT body FROM installed"))
    assert all(TOKEN.encode() not in path.read_bytes() for path in site.folder.rglob("*") if path.is_file())


def test_stored_token_is_used(site: Site) -> None:
    site.hub.gated, site.hub.private = {GEMMA}, {GEMMA}
    stored = site.folder / "cache" / "token"
    stored.parent.mkdir()
    stored.write_text(TOKEN)
    assert site.run(fetched).state == "installed"
