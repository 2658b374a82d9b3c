"""The catalogue of public SAEs: complete, searchable, and free of guesses."""

import subprocess
import sys
import timeit
from importlib.resources import files
from pathlib import Path

import pytest

from millm.hub import catalog
from millm.hub.catalog import INDEX_FILE, RegistrySae, load_index, search_saes, unpack_index
from millm.hub.entries import hugging_face_id

CANONICAL = "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
LARGEST = 200_000
READ_SECONDS = 0.05
ROOT = Path(__file__).parents[2]


def sae(id: str) -> RegistrySae:
    result = catalog.find_sae(id)
    assert result is not None
    return result


def test_index_covers_the_source() -> None:
    """Including listings that two releases share."""
    assert len(load_index().releases) == 170
    assert sum(len(sae.releases) for sae in load_index().saes) == 13_857
    assert search_saes(limit=0).total == len(load_index().saes) == 13_428
    assert sum(sae.neuronpedia is not None for sae in load_index().saes) > 2_000


def test_index_is_small_and_loads_fast() -> None:
    data = files("millm.hub").joinpath(INDEX_FILE).read_bytes()
    assert len(data) <= LARGEST
    assert min(timeit.repeat(lambda: unpack_index(data), number=1, repeat=5)) < READ_SECONDS


def test_ids_are_unique_and_found() -> None:
    listed = search_saes(limit=20_000).saes
    assert len({sae.id for sae in listed}) == len(listed)
    assert all(catalog.find_sae(sae.id) == sae for sae in listed[::97])


def test_canonical_sae() -> None:
    result = sae(CANONICAL)
    assert (result.model, result.layer, result.site, result.width) == ("google/gemma-2-2b", 12, "resid_post", 16384)
    assert (result.hook_point, result.l0, result.support) == ("blocks.12.hook_resid_post", 82, "read")
    assert result.releases == ("gemma-scope-2b-pt-res-canonical", "gemma-scope-2b-pt-res")
    assert result.neuronpedia == "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k"
    assert catalog.neuronpedia_link(f"{CANONICAL}@main", 1234) == f"{result.neuronpedia}/1234"


@pytest.mark.parametrize(
    ("id", "layer", "site", "width", "hook_point", "support"),
    [
        (
            "google/gemma-scope-2b-pt-att/layer_0/width_65k/average_l0_75",
            0,
            "hook_z",
            65536,
            "blocks.0.attn.hook_z",
            "read",
        ),
        (
            "google/gemma-scope-9b-pt-res/layer_20/width_131k/average_l0_62",
            20,
            "resid_post",
            131072,
            "blocks.20.hook_resid_post",
            "read",
        ),
        (
            "google/gemma-scope-2b-pt-transcoders/layer_13/width_16k/average_l0_8",
            13,
            "transcoder",
            16384,
            "blocks.13.ln2.hook_normalized",
            "read",
        ),
        (
            "google/gemma-scope-2-1b-pt/transcoder_all/layer_21_width_16k_l0_big",
            21,
            "transcoder",
            16384,
            "layers.21.pre_feedforward_layernorm.output",
            "read",
        ),
        (
            "google/gemma-scope-2-1b-pt/mlp_out/layer_22_width_65k_l0_small",
            22,
            "mlp_out",
            65536,
            "blocks.22.hook_mlp_out",
            "read",
        ),
        (
            "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8/blocks.8.hook_resid_pre_768",
            8,
            "resid_pre",
            768,
            "blocks.8.hook_resid_pre",
            "read",
        ),
        (
            "jbloom/GPT2-Small-OAI-v5-128k-attn-out-SAEs/v5_128k_layer_6",
            6,
            "attn_out",
            131072,
            "blocks.6.hook_attn_out",
            "read",
        ),
        (
            "fnlp/Llama3_1-8B-Base-LXM-8x/Llama3_1-8B-Base-L16M-8x",
            16,
            "mlp_out",
            32768,
            "blocks.16.hook_mlp_out",
            "converted",
        ),
        (
            "Qwen/SAE-Res-Qwen3.5-27B-W80K-L0_100/layer32.sae.pt",
            32,
            "resid_post",
            81920,
            "blocks.32.hook_resid_post",
            "converted",
        ),
        (
            "mwhanna/qwen3-4b-transcoders/layer_18.safetensors",
            18,
            "transcoder",
            None,
            "blocks.18.mlp.hook_in",
            "converted",
        ),
        (
            "Goodfire/Llama-3.1-8B-Instruct-SAE-l19/Llama-3.1-8B-Instruct-SAE-l19.pth",
            19,
            "resid_post",
            65536,
            "blocks.19.hook_resid_post",
            "converted",
        ),
        ("mntss/clt-gemma-2-2b-2.5M/13", 13, "transcoder", None, None, "no"),
        ("google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", None, "embed", 4096, "hook_embed", "read"),
    ],
)
def test_metadata_from_names_and_paths(
    id: str, layer: int | None, site: str, width: int | None, hook_point: str | None, support: str
) -> None:
    result = sae(id)
    assert (result.layer, result.site, result.width) == (layer, site, width)
    assert (result.hook_point, result.support) == (hook_point, support)


def test_malformed_source_record_is_one_sae() -> None:
    result = search_saes(text="res_scefr-ajt").saes
    assert sorted((sae.layer, sae.path) for sae in result) == [
        (2, "2-res_scefr-ajt"),
        (6, "6-res_scefr-ajt"),
        (10, "10-res_scefr-ajt"),
    ]


def test_filters_combine() -> None:
    result = search_saes(model="google/gemma-2-2b", layer=12, site="resid_post", width=16384, text="canonical")
    assert [sae.id for sae in result.saes] == [CANONICAL]
    assert search_saes(model="google/gemma-2-2b", layer=99).total == 0
    sparse = search_saes(model="google/gemma-2-2b", layer=12, most_l0=40, limit=500)
    every = search_saes(model="google/gemma-2-2b", layer=12, limit=500)
    assert [sae for sae in every.saes if sae.l0 is not None and sae.l0 <= 40] == list(sparse.saes)
    assert 0 < sparse.total < every.total


@pytest.mark.parametrize("model", ["google/gemma-2-2b", "gemma-2-2b", "google/gemma-2-2b-it", "unsloth/gemma-2-2b"])
def test_results_are_ranked(model: str) -> None:
    """Residual stream, 16k and Neuronpedia's choice; also for the tuned model, which has no SAEs of its own."""
    first = search_saes(model=model, layer=12).saes[0]
    assert first.id == CANONICAL


def test_saes_of_the_exact_model_rank_before_its_base() -> None:
    models = [sae.model for sae in search_saes(model="google/gemma-2-9b-it", limit=5000).saes]
    assert models == sorted(models, key=lambda model: model != "google/gemma-2-9b-it")
    assert {*models} == {"google/gemma-2-9b-it", "google/gemma-2-9b"}


def test_pages_concatenate() -> None:
    results = search_saes(text="llama-scope-r1", limit=200).saes
    pages = [search_saes(text="llama-scope-r1", limit=40, offset=offset) for offset in (0, 40, 80, 120)]
    assert tuple(sae for page in pages for sae in page.saes) == results
    assert {page.total for page in pages} == {96}


def test_count_matches_search() -> None:
    for model in ("google/gemma-2-2b", "openai-community/gpt2", "meta-llama/Llama-3.1-8B-Instruct"):
        assert catalog.count_saes(model) == search_saes(model=model, limit=0).total > 0
    assert catalog.count_saes("HuggingFaceTB/SmolLM2-135M-Instruct") == 0


def test_models_are_unique_and_sorted_by_size() -> None:
    models = catalog.list_models()
    assert len({model.id for model in models}) == len(models) == 38
    assert sum(model.saes for model in models) == len(load_index().saes)
    sizes = [model.parameters for model in models]
    assert None not in sizes
    assert sizes == sorted(size for size in sizes if size is not None)
    assert [model.id for model in models[:2]] == ["EleutherAI/pythia-70m-deduped", "openai-community/gpt2"]
    gemma = next(model for model in models if model.id == "google/gemma-2-2b")
    assert (gemma.layers, 16384 in gemma.widths, gemma.sites[0]) == (tuple(range(26)), True, "resid_post")


def test_short_names_map_to_hugging_face_ids() -> None:
    for release in load_index().releases:
        known = hugging_face_id(release.model)
        assert known is not None, release.model
        assert known.count("/") == 1
    assert hugging_face_id("gemma-7b-of-my-own") is None


def test_neuronpedia_links_are_never_guessed() -> None:
    without = next(sae for sae in load_index().saes if sae.neuronpedia is None)
    sae_id = f"{load_index().releases[without.releases[0]].repository}/{without.path}"
    assert catalog.neuronpedia_link(sae_id, 5) is None
    assert catalog.neuronpedia_link("me/my-saes/layer_3") is None
    assert catalog.find_sae("me/my-saes/layer_3") is None


def test_input_scale_from_the_catalogue() -> None:
    assert catalog.input_scale(
        "fnlp/Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L16R"
    ) == pytest.approx(4.7964, abs=1e-4)
    assert catalog.input_scale(CANONICAL) is None


def test_index_is_not_loaded_by_import() -> None:
    code = "import sys, millm.hub.catalog as c; print(c.load_index.cache_info().currsize, 'torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["0", "False"]


@pytest.mark.saelens
def test_committed_index_matches_saelens(tmp_path: Path) -> None:
    fresh = tmp_path / INDEX_FILE
    ran = subprocess.run(
        [sys.executable, "-m", "tools.build_sae_index", str(fresh)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "170 releases, 13857 SAEs at 13428 places" in ran.stdout
    assert ran.stdout.count("malformed: gpt2-small-res_scefr-ajt, blocks.10.hook_resid_pre") == 1
    assert unpack_index(fresh.read_bytes()) == catalog.load_index()
