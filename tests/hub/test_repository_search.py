"""Search of Hugging Face's models: the facts of each hit, and failures."""

import pytest

from millm.errors import DownloadFailed, InvalidToken, MillmError
from millm.hub.downloads import Downloads
from millm.hub.jobs import RemoteModel
from tests.fixtures.fakehub import TOKEN
from tests.fixtures.repos import GEMMA, GPT2, LLAMA, LLAMA_SAE
from tests.hub.fetching import Site


def found(site: Site, words: str, limit: int = 20, **settings: str) -> tuple[RemoteModel, ...]:
    async def story(downloads: Downloads) -> tuple[RemoteModel, ...]:
        return await downloads.search(words, limit)

    return site.run(story, **settings)


def names(*args: object, **how: str) -> set[str]:
    return {model.id for model in found(*args, **how)}  # type: ignore[arg-type]


def test_search_by_part_of_the_name_ignores_case(site: Site) -> None:
    site.hub.gated = {GEMMA}
    (gemma,) = found(site, "GEMMA-2")
    assert (gemma.id, gemma.gated) == (GEMMA, True)
    assert gemma.known_saes > 1000
    assert gemma.parameters
    assert gemma.downloads
    assert not site.cache.exists()


def test_only_safetensors_models_by_downloads(site: Site) -> None:
    everything = found(site, "/")
    assert {GEMMA, GPT2, LLAMA} <= {model.id for model in everything}
    assert LLAMA_SAE not in {model.id for model in everything}
    assert [model.downloads for model in everything] == sorted((one.downloads for one in everything), reverse=True)
    assert found(site, "/", limit=1) == everything[:1]
    assert found(site, "there is no such model") == ()


def test_private_models_need_their_owners_token(site: Site) -> None:
    site.hub.private = {LLAMA}
    assert names(site, "llama") == set()
    assert names(site, "llama", hf_token=TOKEN) == {LLAMA}


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"hf_token": "hf_wrong"}, InvalidToken, "make a new one"),
        ({"HF_HUB_OFFLINE": "1"}, DownloadFailed, "HF_HUB_OFFLINE forbids"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, DownloadFailed, "check the network and HF_ENDPOINT"),
    ],
)
def test_failed_searches_are_named(
    site: Site, how: dict[str, str], error: type[MillmError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {name for name in how if name.isupper()}:
        monkeypatch.setenv(name, how.pop(name))
    with pytest.raises(error, match=says) as raised:
        found(site, "llama", **how)
    assert "hf_wrong" not in str(raised.value)


def test_busy_hub_is_named(site: Site) -> None:
    site.hub.fail("/api/models", "status", status=503, times=9)
    with pytest.raises(DownloadFailed, match=r"could not be searched \(.*503|Busy"):
        found(site, "llama")
