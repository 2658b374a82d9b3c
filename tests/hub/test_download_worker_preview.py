"""Previews against the downloads that follow; a preview downloads no files."""

import json

import pytest

from millm.errors import InvalidModel, InvalidToken, RepositoryNotFound
from millm.hub.downloads import Downloads
from millm.hub.jobs import ArtifactKind, DownloadPreview, parse_spec
from tests.fixtures.fakehub import TOKEN
from tests.fixtures.repos import GEMMA, GPT2, SCOPE_SAE
from tests.hub.fetching import Site


def preview(site: Site, name: str, kind: ArtifactKind = "model") -> DownloadPreview:
    async def story(downloads: Downloads) -> DownloadPreview:
        return await downloads.preview(parse_spec(name, kind))

    return site.run(story)


def test_preview_of_a_model(site: Site) -> None:
    before = preview(site, GEMMA)
    assert not site.cache.exists()
    assert (before.architecture, before.dtype, before.licence) == ("Gemma2ForCausalLM", "float32", "gemma")
    assert (before.gated, before.has_access, before.needs_remote_code) == (False, True, False)
    assert before.link == f"{site.hub.url}/{GEMMA}"
    assert before.size == before.to_download

    async def fetch(downloads: Downloads) -> None:
        await downloads.wait((await downloads.start(before.asked)).id)

    site.run(fetch)
    (row,) = site.installed().values()
    assert {file.path: file.size for file in row.files} == {file.path: file.size for file in before.files}
    after = preview(site, GEMMA)
    assert (after.to_download, after.size, after.commit) == (0, before.size, row.commit)
    assert all(file.is_here for file in after.files)


def test_skipped_files_are_counted(site: Site) -> None:
    skipped = ("pytorch_model.bin", "tf_model.h5", "onnx/decoder_model.onnx", "README.md")
    assert preview(site, GPT2).skipped == sum((site.hub.root / GPT2 / name).stat().st_size for name in skipped)


def test_preview_of_an_sae(site: Site) -> None:
    result = preview(site, SCOPE_SAE, "sae")
    assert (result.licence, result.architecture, result.parameters) == ("cc-by-4.0", None, None)
    assert result.size == (site.hub.root / SCOPE_SAE / "params.npz").stat().st_size
    assert result.skipped > result.size


def test_preview_of_a_gated_repository(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.hub.gated = {GEMMA}
    without = preview(site, GEMMA)
    assert (without.gated, without.has_access, without.architecture) == (True, False, "Gemma2ForCausalLM")
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    assert not preview(site, GEMMA).has_access
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert preview(site, GEMMA).has_access


def test_failed_previews_are_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RepositoryNotFound, match="tiny/nothing"):
        preview(site, "tiny/nothing")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InvalidToken):
        preview(site, GEMMA)


def test_quantisation_and_remote_code_are_reported(own_site: Site) -> None:
    own_site.write_model("tiny/coded", 10)
    config = {"architectures": ["Tiny"], "auto_map": {}, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    (own_site.hub.root / "tiny/coded/config.json").write_text(json.dumps(config))
    assert not preview(own_site, "tiny/coded").needs_remote_code
    own_site.write("tiny/coded/modeling_tiny.py")
    result = preview(own_site, "tiny/coded")
    assert (result.needs_remote_code, result.quantization, result.parameters) == (True, "gptq 4-bit", None)


def test_model_with_pickles_only_is_rejected(own_site: Site) -> None:
    own_site.write("tiny/pickled/config.json")
    own_site.write("tiny/pickled/pytorch_model.bin")
    with pytest.raises(InvalidModel, match=r"no \.safetensors weights"):
        preview(own_site, "tiny/pickled")
