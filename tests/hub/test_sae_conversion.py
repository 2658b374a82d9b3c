"""SAEs of other libraries: the downloaded files, the conversion, and failures."""

import asyncio
from pathlib import Path

import pytest

from millm.hub.downloads import Downloads
from millm.hub.home import Home
from millm.hub.jobs import DownloadJob, parse_spec
from millm.hub.sae_conversion import find_converted
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from tests.fixtures.foreign_saes import SAES, ForeignSae, inputs, write
from tests.hub.fetching import Site


@pytest.fixture
def home(own_site: Site) -> Home:
    return Home(own_site.folder / "home")


def pull(site: Site, sae: ForeignSae, home: Home) -> DownloadJob:
    write(sae, site.hub.root / sae.repository)

    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(parse_spec(sae.name, "sae"))).id)

    return site.run(story, home=home.folder)


@pytest.mark.parametrize("kind", ["qwen_scope", "llama_scope", "connor_rob", "AutoEncoderTopK"])
def test_foreign_sae_is_downloaded_converted_and_readable(kind: str, own_site: Site, home: Home) -> None:
    """Files that the conversion does not need (other layers, a pickle) are not downloaded."""
    sae = SAES[kind]
    own_site.write(f"{sae.repository}/layer1.sae.pt")
    own_site.write(f"{sae.repository}/optimizer.pt")
    job = pull(own_site, sae, home)
    assert (job.state, job.problem) == ("installed", None)
    assert "converting" in [job.state for job in own_site.reported]
    assert set(own_site.hub.downloaded) == {f"{sae.repository}/{name}" for name in sae.files()}
    (snapshot,) = own_site.cache.glob(f"models--{sae.repository.replace('/', '--')}/snapshots/*")
    folder = find_converted(snapshot / sae.path, sae.name, home)
    assert folder is not None
    opened = SparseAutoencoder.open(canonicalise(folder, home.canonical_saes))
    assert opened.encode(inputs()).isfinite().all()


def test_failed_conversion_fails_the_job(own_site: Site, home: Home) -> None:
    published = SAES["AutoEncoder"]
    config = f"{published.path}/config.json"
    unknown = ForeignSae("", published.repository, published.path, lambda: published.files() | {config: {}})
    job = pull(own_site, unknown, home)
    assert (job.state, job.problem and job.problem.code) == ("failed", "invalid_sae")
    assert own_site.installed() == {}
    assert list(home.converted_saes.iterdir()) == []


def test_cancelled_conversion_leaves_no_copy(own_site: Site, home: Home) -> None:
    sae = SAES["qwen_scope"]
    write(sae, own_site.hub.root / sae.repository)

    async def story(downloads: Downloads) -> DownloadJob:
        job = await downloads.start(parse_spec(sae.name, "sae"))
        while downloads.find(job.id).state != "converting":
            await asyncio.sleep(0.01)
        cancelled = await asyncio.wait_for(downloads.cancel(job.id), 1)
        assert list(home.converted_saes.glob("[!.]*")) == []
        return await downloads.wait((await downloads.resume(cancelled.id)).id)

    assert own_site.run(story, home=home.folder).state == "installed"
    assert [job.state for job in own_site.reported].count("cancelled") == 1


def test_unknown_pickle_is_never_downloaded(own_site: Site, home: Home, tmp_path: Path) -> None:
    own_site.write("me/stuff/layer_3/weights.pt")

    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(parse_spec("me/stuff/layer_3", "sae"))).id)

    assert own_site.run(story, home=home.folder).state == "failed"
    assert own_site.hub.downloaded == []
