"""An SAE of another library: what is fetched of it, that it is converted, and what is left when that cannot be."""

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
def test_it_is_fetched_converted_and_read(kind: str, own_site: Site, home: Home) -> None:
    """Files that it does not need (other layers, a pickle beside it) stay where they are."""
    sae = SAES[kind]
    own_site.write(f"{sae.repository}/layer1.sae.pt")
    own_site.write(f"{sae.repository}/optimizer.pt")
    job = pull(own_site, sae, home)
    assert (job.state, job.problem) == ("installed", None)
    assert "converting" in [told.state for told in own_site.told]
    assert set(own_site.hub.downloaded) == {f"{sae.repository}/{name}" for name in sae.files()}
    (snapshot,) = own_site.cache.glob(f"models--{sae.repository.replace('/', '--')}/snapshots/*")
    folder = find_converted(snapshot / sae.path, sae.name, home)
    assert folder is not None
    opened = SparseAutoencoder.open(canonicalise(folder, home.canonical_saes))
    assert opened.encode(inputs()).isfinite().all()


def test_one_that_cannot_be_converted_is_not_installed(own_site: Site, home: Home) -> None:
    published = SAES["AutoEncoder"]
    config = f"{published.path}/config.json"
    unknown = ForeignSae("", published.repository, published.path, lambda: published.files() | {config: {}})
    job = pull(own_site, unknown, home)
    assert (job.state, job.problem and job.problem.code) == ("failed", "invalid_sae")
    assert own_site.installed() == {}
    assert list(home.converted_saes.iterdir()) == []


def test_cancelling_a_conversion(own_site: Site, home: Home) -> None:
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
    assert [told.state for told in own_site.told].count("cancelled") == 1


def test_an_unknown_pickle_is_never_fetched(own_site: Site, home: Home, tmp_path: Path) -> None:
    own_site.write("me/stuff/layer_3/weights.pt")

    async def story(downloads: Downloads) -> DownloadJob:
        return await downloads.wait((await downloads.start(parse_spec("me/stuff/layer_3", "sae"))).id)

    assert own_site.run(story, home=home.folder).state == "failed"
    assert own_site.hub.downloaded == []
