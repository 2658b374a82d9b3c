"""Jobs: one per spec, two at a time, cancelled within a second, resumable after a restart."""

import asyncio
import os
import signal
import time
from math import inf
from pathlib import Path

import pytest

from millm.errors import Conflict, InvalidRequest, JobNotFound, QueueFull
from millm.hub.downloads import MAX_QUEUED, MAX_RUNNING, Downloads
from millm.hub.jobs import ACTIVE_STATES, DownloadJob, DownloadSpec, parse_spec
from tests.fixtures.repos import GEMMA, GPT2, LLAMA, SCOPE, SCOPE_PATH, SCOPE_SAE
from tests.hub.fetching import Site

MODEL = parse_spec(GEMMA, "model")
LARGE = parse_spec("tiny/large", "model")


async def until(downloads: Downloads, id: str, state: str) -> DownloadJob:
    while downloads.find(id).state != state:
        await asyncio.sleep(0.02)
    return downloads.find(id)


async def until_it_runs(downloads: Downloads, id: str, done: int = 1) -> DownloadJob:
    while downloads.find(id).done < done:
        await asyncio.sleep(0.02)
    return downloads.find(id)


def processes() -> list[int]:
    """Process ids of this process's workers."""
    stats = {folder: folder / "stat" for folder in Path("/proc").iterdir() if folder.name.isdecimal()}
    return [
        int(folder.name)
        for folder, stat in stats.items()
        if stat.exists()
        and stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid())
        and b"millm.hub.download_worker" in (folder / "cmdline").read_bytes()
    ]


# ------------------------------------------------------------------------------------------------ start to installed


def test_model_and_sae_are_installed(site: Site) -> None:
    async def story(downloads: Downloads) -> list[DownloadJob]:
        jobs = [await downloads.start(MODEL), await downloads.start(parse_spec(SCOPE_SAE, "sae"))]
        return [await downloads.wait(job.id) for job in jobs]

    model, sae = site.run(story)
    rows = site.installed()
    assert set(rows) == {GEMMA, SCOPE_SAE}
    assert (rows[SCOPE_SAE].repository, rows[SCOPE_SAE].path) == (SCOPE, SCOPE_PATH)
    assert [file.path for file in rows[SCOPE_SAE].files] == [f"{SCOPE_PATH}/params.npz"]
    assert (model.state, model.commit) == ("installed", rows[GEMMA].commit)
    assert model.done == model.total == sum(file.size for file in rows[GEMMA].files)
    assert [job.name for job in (sae, model)] == [SCOPE_SAE, GEMMA]
    assert (site.cache / "models--google--gemma-2-2b" / "refs" / "main").read_text() == model.commit


def test_only_files_without_code_are_downloaded(site: Site) -> None:
    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(parse_spec(GPT2, "model"))).id)

    site.run(story)
    assert {Path(name).suffix for name in site.hub.downloaded} == {".json", ".safetensors"}


@pytest.mark.parametrize(("trusted", "is_downloaded"), [((), False), (("tiny/coded@" + "0" * 40,), True)])
def test_python_files_of_trusted_repositories_are_downloaded(
    trusted: tuple[str, ...], is_downloaded: bool, own_site: Site
) -> None:
    own_site.write_model("tiny/coded", 1000)
    own_site.write("tiny/coded/modeling_tiny.py", byte=b"#")

    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(parse_spec("tiny/coded", "model"))).id)

    own_site.run(story, trust_remote_code=trusted)
    assert ("tiny/coded/modeling_tiny.py" in own_site.hub.downloaded) == is_downloaded


def test_revision_is_part_of_the_name(site: Site) -> None:
    site.hub.branches = {"main", "refs/pr/1"}

    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(parse_spec(f"{LLAMA}@refs/pr/1", "model"))).id)

    job = site.run(story)
    assert job.name == f"{LLAMA}@refs/pr/1"
    assert set(site.installed()) == {job.name}
    assert (site.cache / "models--tiny--llama" / "refs" / "refs" / "pr" / "1").read_text() == job.commit


def test_progress_is_reported_twice_a_second(own_site: Site) -> None:
    """With bytes, a speed near that of the hub, and the time left."""
    own_site.write_model("tiny/large", 2_000_000)
    own_site.hub.speed = 1_000_000

    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(LARGE)).id)

    own_site.run(story)
    running = [job for job in own_site.reported if job.state == "running"]
    gaps = [later.updated - job.updated for job, later in zip(own_site.reported, own_site.reported[1:], strict=False)]
    assert max(gaps[2:]) <= 0.5
    assert [job.done for job in running] == sorted(job.done for job in running)
    assert 0 < running[len(running) // 2].done < 2_000_000
    last = running[-1]
    assert last.speed is not None
    assert 200_000 < last.speed < 2_000_000
    assert last.seconds_left is not None
    assert last.seconds_left < 5


# ------------------------------------------------------------------------------------------------------- one at a time


def test_same_spec_is_one_job(site: Site) -> None:
    site.hub.fail(".safetensors", "slow", times=inf, speed=400_000)

    async def story(downloads: Downloads) -> None:
        first, second = await asyncio.gather(downloads.start(MODEL), downloads.start(MODEL))
        assert first.id == second.id
        await until_it_runs(downloads, first.id)
        assert (await downloads.start(MODEL)).id == first.id
        assert len(processes()) == 1
        await downloads.wait(first.id)
        assert len(downloads.jobs()) == 1

    site.run(story)
    shards = [name for name in site.hub.downloaded if name.endswith(".safetensors")]
    assert len(shards) == len(set(shards)) == 3


def test_two_jobs_run_and_the_queue_is_limited(own_site: Site) -> None:
    own_site.write_model("tiny/large", 1000)
    own_site.hub.branches = {f"b{number}" for number in range(MAX_RUNNING + MAX_QUEUED + 1)}
    own_site.hub.fail(".safetensors", "stall", times=inf, seconds=30)

    async def story(downloads: Downloads) -> None:
        specs = [parse_spec("tiny/large", "model", branch) for branch in sorted(own_site.hub.branches)]
        running = [await downloads.start(spec) for spec in specs[:MAX_RUNNING]]
        for job in running:
            await until(downloads, job.id, "running")
        for spec in specs[MAX_RUNNING:-1]:
            await downloads.start(spec)
        assert len(processes()) == MAX_RUNNING
        with pytest.raises(QueueFull, match="32 downloads wait already"):
            await downloads.start(specs[-1])
        await downloads.cancel(running[0].id)
        await until(downloads, downloads.jobs()[-1 - MAX_RUNNING].id, "running")
        await downloads.start(specs[-1])
        assert [job.asked for job in reversed(downloads.jobs())] == specs

    own_site.run(story)


@pytest.mark.parametrize(
    "spec",
    [
        DownloadSpec(kind="model", repository="nowhere"),
        DownloadSpec(kind="model", repository="a/../b"),
        DownloadSpec(kind="model", repository="a/b", path="c"),
        DownloadSpec(kind="sae", repository="a/b", path="../c"),
        DownloadSpec(kind="model", repository="a/b", revision="../main"),
    ],
)
def test_invalid_specs_are_rejected_before_a_job_exists(spec: DownloadSpec, site: Site) -> None:
    async def story(downloads: Downloads) -> None:
        with pytest.raises(InvalidRequest):
            await downloads.start(spec)
        with pytest.raises(InvalidRequest):
            await downloads.preview(spec)
        assert downloads.jobs() == []

    site.run(story)


def test_unknown_job_is_named(site: Site) -> None:
    async def story(downloads: Downloads) -> None:
        for act in (downloads.resume, downloads.cancel, downloads.wait):
            with pytest.raises(JobNotFound, match="no job 'nix'"):
                await act("nix")

    site.run(story)


# --------------------------------------------------------------------------------------------- cancelled and resumed


def test_cancelled_job_stops_within_a_second_and_resumes(own_site: Site) -> None:
    """Complete files are not downloaded again."""
    own_site.write_model("tiny/large", 1000, 5_000_000)
    own_site.hub.fail("model-00001", "slow", speed=1_000_000)

    async def story(downloads: Downloads) -> None:
        job = await downloads.start(LARGE)
        await until_it_runs(downloads, job.id, 500_000)
        start = time.monotonic()
        cancelled = await downloads.cancel(job.id)
        assert time.monotonic() - start < 1
        assert (cancelled.state, cancelled.problem, cancelled.speed) == ("cancelled", None, None)
        assert (processes(), own_site.orphans()) == ([], [])
        assert own_site.installed() == {}
        assert (await downloads.resume(job.id)).state == "queued"
        assert (await downloads.wait(job.id)).state == "installed"
        with pytest.raises(Conflict, match="installed already"):
            await downloads.resume(job.id)
        assert (await downloads.cancel(job.id)).state == "installed"

    own_site.run(story)
    names = [name.rpartition("/")[2] for name in own_site.hub.downloaded]
    assert sorted(names) == ["config.json", "model-00000.safetensors", *2 * ["model-00001.safetensors"]]


def test_waiting_and_queued_jobs_can_be_cancelled(site: Site) -> None:
    site.hub.fail("/api/", "status", times=inf, status=429, retry_after=60)

    async def story(downloads: Downloads) -> None:
        jobs = [await downloads.start(parse_spec(name, "model")) for name in (GEMMA, GPT2, LLAMA)]
        await until(downloads, jobs[0].id, "waiting")
        for job in reversed(jobs):
            assert (await downloads.cancel(job.id)).state == "cancelled"
        assert processes() == []

    site.run(story)


def test_restart_interrupts_and_resume_downloads_missing_files_only(own_site: Site) -> None:
    own_site.write_model("tiny/large", 1000, 2000, 5_000_000)
    own_site.hub.fail("model-00002", "slow", speed=1_000_000)

    async def first(downloads: Downloads) -> DownloadJob:
        job = await downloads.start(LARGE)
        return await until_it_runs(downloads, job.id, 500_000)

    job = own_site.run(first)
    assert own_site.orphans() == []
    had = list(own_site.hub.downloaded)

    async def second(downloads: Downloads) -> DownloadJob:
        (restored,) = downloads.jobs()
        assert (restored.id, restored.state, restored.speed) == (job.id, "interrupted", None)
        assert restored.done >= 500_000
        await downloads.resume(restored.id)
        return await downloads.wait(restored.id)

    assert own_site.run(second).state == "installed"
    assert len(had) == 4
    assert own_site.hub.downloaded[4:] == ["tiny/large/model-00002.safetensors"]
    assert set(own_site.installed()) == {"tiny/large"}


def test_unverified_files_of_an_earlier_process_are_checked(own_site: Site) -> None:
    """As after a power cut: the length is right and the content is not."""
    own_site.write_model("tiny/large", 1000, 2000)

    async def fetch(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(LARGE)).id)

    own_site.run(fetch)
    (row,) = own_site.installed().values()
    blob = own_site.cache / "models--tiny--large" / "blobs" / row.files[-1].hash
    blob.write_bytes(bytes(2000))
    own_site.hub.forget()
    assert own_site.run(fetch).state == "installed"
    assert own_site.hub.downloaded == ["tiny/large/model-00001.safetensors"]
    assert set(own_site.installed()) == {"tiny/large"}


def test_killed_worker_fails_its_job(own_site: Site) -> None:
    own_site.write_model("tiny/large", 3_000_000)
    own_site.hub.speed = 1_000_000

    async def story(downloads: Downloads) -> DownloadJob:
        job = await downloads.start(LARGE)
        await until_it_runs(downloads, job.id, 300_000)
        os.kill(processes()[0], signal.SIGKILL)
        return await downloads.wait(job.id)

    job = own_site.run(story)
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "download_failed")
    assert (own_site.orphans(), own_site.installed()) == ([], {})


def test_close_interrupts_running_and_queued_jobs(own_site: Site) -> None:
    own_site.write_model("tiny/large", 3_000_000)
    own_site.hub.speed = 1_000_000
    own_site.hub.branches = {"a", "b", "c"}

    async def story(downloads: Downloads) -> None:
        for branch in "abc":
            await downloads.start(parse_spec("tiny/large", "model", branch))
        await until_it_runs(downloads, downloads.jobs()[-1].id)

    own_site.run(story)
    assert processes() == []

    async def after(downloads: Downloads) -> list[str]:
        return [job.state for job in downloads.jobs()]

    assert own_site.run(after) == 3 * ["interrupted"]
    assert not ACTIVE_STATES & {job.state for job in own_site.reported[-3:]}
