"""Library entries: ids, states and metadata; a hostile entry does not hide the others."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import scan_cache_dir
from safetensors.numpy import load_file

from millm.database import Database
from millm.errors import (
    Conflict,
    InvalidModel,
    InvalidRequest,
    InvalidSae,
    ModelNotFound,
    RemoteCodeRefused,
    SaeNotFound,
)
from millm.hub import catalog, sae_conversion
from millm.hub import hf_cache as hub_cache
from millm.hub.home import Home
from millm.hub.jobs import DownloadSpec
from millm.hub.library import Library
from tests.fixtures.hfcache import ONE, THREE, TWO, contents, put
from tests.fixtures.tiny import FEATURES, WIDTH
from tests.hub.shelf import Shelf

SCOPE = "google/gemma-scope-2b-pt-res"
INSIDE = "layer_12/width_16k/average_l0_82"


def gemma_scope(sae: Path, folder: Path) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", **load_file(sae / "sae_weights.safetensors"))
    return (folder / "params.npz").read_bytes()


# ------------------------------------------------------------------------------------------------------ what is there


def test_empty_cache_lists_builtin_entries(shelf: Shelf) -> None:
    assert [(entry.id, entry.origin, entry.state) for entry in shelf.library.models()] == [("tiny", "builtin", "whole")]
    assert [(entry.id, entry.origin, entry.state) for entry in shelf.library.saes()] == [
        ("tiny-sae", "builtin", "whole")
    ]


def test_model_metadata(shelf: Shelf, tiny_model: Path) -> None:
    put(shelf.cache, "acme/tiny", shelf.model)
    entry = shelf.library.model("acme/tiny")
    weights = load_file(tiny_model / "model.safetensors")
    assert (entry.architecture, entry.model_type, entry.dtype) == ("LlamaForCausalLM", "llama", "float32")
    assert entry.parameters == sum(tensor.size for tensor in weights.values())
    assert entry.size == sum(map(len, shelf.model.values()))
    assert (entry.context_length, entry.generates, entry.needs_remote_code, entry.shared) == (256, True, False, 0)
    assert (entry.commit, entry.is_verified) == (ONE, False)


def test_sae_metadata_of_each_layout(shelf: Shelf, tiny_sae: Path, tmp_path: Path) -> None:
    scope_2 = {
        "params.safetensors": shelf.sae["sae_weights.safetensors"],
        "config.json": json.dumps(
            {
                "architecture": "jump_relu",
                "model_name": "google/gemma-3-270m",
                "hf_hook_point_in": "model.layers.5.output",
            }
        ).encode(),
    }
    put(shelf.cache, SCOPE, {f"{INSIDE}/params.npz": gemma_scope(tiny_sae, tmp_path / "npz")})
    put(shelf.cache, "acme/two", {f"resid_post/{name}": content for name, content in scope_2.items()})
    put(shelf.cache, "acme/lens", shelf.sae)
    entries = {entry.id: entry for entry in shelf.library.saes()}
    assert set(entries) == {"tiny-sae", f"{SCOPE}/{INSIDE}", "acme/two/resid_post", "acme/lens"}
    assert {(entry.width, entry.d_in, entry.architecture) for entry in entries.values()} == {
        (FEATURES, WIDTH, "jumprelu")
    }
    scope = entries[f"{SCOPE}/{INSIDE}"]
    assert (scope.format, scope.layer, scope.model) == ("gemma_scope", 12, "google/gemma-2-2b")
    assert scope.hook_point == "blocks.12.hook_resid_post"
    assert (entries["acme/two/resid_post"].layer, entries["acme/two/resid_post"].format) == (5, "gemma_scope_2")
    assert (entries["acme/lens"].layer, entries["acme/lens"].model) == (1, "tiny-llama")
    assert {entry.state for entry in entries.values()} == {"whole"}


def test_repository_of_saes_is_no_model(shelf: Shelf) -> None:
    put(shelf.cache, "acme/lens", {**shelf.sae, "config.json": b"{}"})
    assert [entry.id for entry in shelf.library.models()] == ["tiny"]


def test_catalogue_completes_sae_metadata(shelf: Shelf, tiny_sae: Path, tmp_path: Path) -> None:
    id = f"{SCOPE}/{INSIDE}"
    put(shelf.cache, SCOPE, {f"{INSIDE}/params.npz": gemma_scope(tiny_sae, tmp_path / "npz")})
    put(shelf.cache, "acme/lens", shelf.sae)
    assert shelf.library.sae(id).neuronpedia == catalog.neuronpedia_link(id) is not None
    assert shelf.library.sae("acme/lens").neuronpedia is None


@pytest.mark.parametrize(
    ("files", "entries"),
    [
        (["a/ae.pt", "a/config.json"], {"acme/other/a": "dictionary_learning"}),
        (["a/hyperparams.json", "a/checkpoints/final.safetensors"], {"acme/other/a": "llama_scope"}),
        (["layer0.sae.pt", "layer7.sae.pt"], {
            "acme/other/layer0.sae.pt": "qwen_scope", "acme/other/layer7.sae.pt": "qwen_scope",
        }),
        (["b/cfg.json", "b/sae.safetensors"], {"acme/other/b": "sparsify"}),
        (["c/sae_weights.safetensors", "c/config.json"], {"acme/other/c": "llama_scope_r1_distill"}),
        (["d/pytorch_model.bin", "d/config.json"], {}),
    ],
)  # fmt: skip
def test_foreign_saes_are_listed(files: list[str], entries: dict[str, str], shelf: Shelf) -> None:
    """Foreign SAEs are listed and deleted, and used once they are converted."""
    weights = shelf.sae["sae_weights.safetensors"]
    put(shelf.cache, "acme/other", {name: b"{}" if name.endswith("json") else weights for name in files})
    assert {entry.id: entry.format for entry in shelf.library.saes() if entry.origin == "hub"} == entries
    for id, layout in entries.items():
        assert shelf.library.sae(id).state == "whole"
        with pytest.raises(InvalidSae, match=f"{layout}, which has to be converted first"):
            shelf.library.locate_sae(id)
        shelf.library.delete_sae(id)
    assert [entry.id for entry in shelf.library.saes()] == ["tiny-sae"]


def test_converted_copy_is_located_and_deleted_with_its_source(shelf: Shelf) -> None:
    original = put(shelf.cache, "acme/other", {"a/ae.pt": b"x", "a/config.json": b"{}"}) / "a"
    foreign = sae_conversion.inspect_source(original)
    assert foreign is not None
    copy = sae_conversion._target_folder(original, foreign, "acme/other/a", shelf.home)
    copy.mkdir(parents=True)
    for name, content in shelf.sae.items():
        (copy / name).write_bytes(content)
    assert shelf.library.locate_sae("acme/other/a").folder == copy
    assert shelf.library.delete_sae("acme/other/a").bytes == 3 + sum(map(len, shelf.sae.values()))
    assert not copy.exists()


def test_remote_code_is_trusted_by_commit(shelf: Shelf, tiny_model: Path) -> None:
    config = {**json.loads(shelf.model["config.json"]), "model_type": "new", "auto_map": {"AutoConfig": "x.X"}}
    files = {**shelf.model, "config.json": json.dumps(config).encode()}
    put(shelf.cache, "acme/code", files, commit=ONE)
    put(shelf.cache, "acme/code", files, commit=TWO, ref="next")
    library = Library(shelf.home, shelf.database, {"tiny": tiny_model}, trusted=[f"acme/code@{ONE}"])
    assert library.model("acme/code").needs_remote_code
    assert library.locate_model("acme/code").is_trusted
    assert not library.locate_model("tiny").is_trusted
    for refusing, id in ((library, "acme/code@next"), (shelf.library, "acme/code")):
        with pytest.raises(RemoteCodeRefused, match="MILLM_TRUST_REMOTE_CODE"):
            refusing.locate_model(id)


def test_ids_follow_refs(shelf: Shelf) -> None:
    put(shelf.cache, "acme/tiny", shelf.model, commit=ONE)
    put(shelf.cache, "acme/tiny", shelf.model, commit=TWO, ref="v1.0")
    put(shelf.cache, "acme/tiny", shelf.model, commit=THREE, ref=None)
    ids = ["acme/tiny", f"acme/tiny@{THREE}", "acme/tiny@v1.0"]
    assert [entry.id for entry in shelf.library.models()] == [*ids, "tiny"]
    assert [shelf.library.model(id).commit for id in ids] == [ONE, THREE, TWO]
    assert shelf.library.model(f"acme/tiny@{ONE}").id == "acme/tiny"
    assert shelf.library.locate_model("acme/tiny@v1.0").folder.name == TWO


def test_unknown_id_lists_existing_ids(shelf: Shelf) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'acme/other'; there are tiny"):
        shelf.library.model("acme/other")
    with pytest.raises(SaeNotFound, match="tiny-sae"):
        shelf.library.locate_sae("../../etc")


def test_scan_agrees_with_huggingface_hub(shelf: Shelf) -> None:
    """Repositories, commits, refs and bytes, with blobs shared between revisions."""
    put(shelf.cache, "acme/tiny", shelf.model, commit=ONE, ref=None)
    put(shelf.cache, "acme/tiny", {**shelf.model, "README.md": b"new"}, commit=TWO)
    put(shelf.cache, "gpt2", shelf.model, commit=ONE, ref="refs/pr/1")
    expected = {
        (repo.repo_id, revision.commit_hash, revision.refs, revision.size_on_disk)
        for repo in scan_cache_dir(shelf.cache).repos
        for revision in repo.revisions
    }
    scanned = {
        (
            revision.repository,
            revision.commit,
            frozenset(revision.refs),
            sum(file.size or 0 for file in revision.files.values()),
        )
        for revision in hub_cache.scan_revisions({})
    }
    assert scanned == expected
    entry = shelf.library.model("acme/tiny")
    assert (entry.size - entry.shared, entry.shared) == (3, sum(map(len, shelf.model.values())))


# -------------------------------------------------------------------------------------------------------- integrity


def test_verified_download(shelf: Shelf) -> None:
    put(shelf.cache, "acme/tiny", shelf.model)
    shelf.install("model", "acme/tiny", ONE, "", {name: len(content) for name, content in shelf.model.items()})
    shelf.job(DownloadSpec(kind="model", repository="acme/tiny"), ONE, "cancelled", created=9)
    assert shelf.library.model("acme/tiny").is_verified
    assert shelf.model_state("acme/tiny") == ("whole", None)


def test_file_changed_after_installation_is_damaged(shelf: Shelf) -> None:
    put(shelf.cache, "acme/tiny", shelf.model)
    shelf.install("model", "acme/tiny", ONE, "", {"config.json": 1})
    assert shelf.model_state("acme/tiny")[0] == "damaged"
    assert not shelf.library.model("acme/tiny").is_verified
    with pytest.raises(InvalidModel, match=r"config.json has \d+ bytes and was installed with 1"):
        shelf.library.locate_model("acme/tiny")


def test_file_removed_after_installation_is_missing(shelf: Shelf) -> None:
    put(shelf.cache, "acme/lens", {f"a/{name}": content for name, content in shelf.sae.items()})
    shelf.install("sae", "acme/lens", ONE, "a", {"a/labels.jsonl": 1})
    entry = shelf.library.sae("acme/lens/a")
    assert (entry.state, entry.problem) == ("incomplete", "labels.jsonl is missing")


def test_dangling_links_are_incomplete(shelf: Shelf) -> None:
    put(shelf.cache, "acme/tiny", {**shelf.model, "model.safetensors": None})
    assert shelf.model_state("acme/tiny") == ("incomplete", "model.safetensors is missing")


def test_indexed_shards_are_required(shelf: Shelf) -> None:
    files = {name: content for name, content in shelf.model.items() if name != "model.safetensors"}
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files |= {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1.safetensors": shelf.model["model.safetensors"],
    }
    put(shelf.cache, "acme/tiny", files)
    assert shelf.model_state("acme/tiny") == ("incomplete", "model-2.safetensors is missing")


@pytest.mark.parametrize("left", ["{}.incomplete", "{}.0a1b2c3d.incomplete"])
def test_leftover_file_marks_the_newest_revision_incomplete(left: str, shelf: Shelf) -> None:
    """Unless a later try completed the same file."""
    put(shelf.cache, "acme/tiny", shelf.model)
    blobs = shelf.cache / "models--acme--tiny" / "blobs"
    (blobs / left.format("f" * 64)).write_bytes(b"half")
    assert shelf.model_state("acme/tiny")[0] == "incomplete"
    (blobs / ("f" * 64)).write_bytes(b"whole")
    assert shelf.model_state("acme/tiny")[0] == "whole"


def test_unfinished_job_marks_its_entry_incomplete(shelf: Shelf) -> None:
    """All files may be there but the last, the tokenizer. The id is the requested revision, without a ref yet."""
    put(shelf.cache, "acme/tiny", shelf.model, ref=None)
    spec = DownloadSpec(kind="model", repository="acme/tiny")
    shelf.job(spec, ONE, "interrupted", created=1)
    state, problem = shelf.model_state("acme/tiny")
    assert state == "incomplete"
    assert problem is not None
    assert "interrupted" in problem
    shelf.job(spec, ONE, "installed", created=2)
    assert shelf.model_state("acme/tiny")[0] == "whole"


def cut(files: dict[str, bytes]) -> None:
    files["model.safetensors"] = files["model.safetensors"][:-1]


def header_too_long(files: dict[str, bytes]) -> None:
    files["model.safetensors"] = struct.pack("<Q", 2**62) + b"{}"


def wrong_shape(files: dict[str, bytes]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode()
    files["model.safetensors"] = struct.pack("<Q", len(header)) + header + b"abcd"


def deep_header(files: dict[str, bytes]) -> None:
    files["model.safetensors"] = struct.pack("<Q", 100_000) + b"[" * 100_000


def empty(files: dict[str, bytes]) -> None:
    files["model.safetensors"] = b""


def config_is_a_list(files: dict[str, bytes]) -> None:
    files["config.json"] = b"[1, 2]"


def config_is_huge(files: dict[str, bytes]) -> None:
    files["config.json"] = b" " * (65 << 20)


def config_is_not_text(files: dict[str, bytes]) -> None:
    files["config.json"] = b"\xff\xfe{"


def config_is_deep(files: dict[str, bytes]) -> None:
    files["config.json"] = b"[" * 200_000


def index_leads_out(files: dict[str, bytes]) -> None:
    weights = files.pop("model.safetensors")
    files["a.safetensors"] = weights
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../../../etc/passwd"}}).encode()


@pytest.mark.parametrize(
    "harm",
    [cut, header_too_long, wrong_shape, deep_header, empty, config_is_a_list, config_is_huge, config_is_not_text,
     config_is_deep, index_leads_out],
)  # fmt: skip
def test_damaged_entry_does_not_hide_others(
    harm: Callable[[dict[str, bytes]], None], shelf: Shelf, tmp_path: Path
) -> None:
    put(shelf.cache, "acme/good", shelf.model)
    files = dict(shelf.model)
    harm(files)
    put(shelf.cache, "acme/bad", files)
    states = {entry.id: entry.state for entry in shelf.library.models()}
    assert states == {"acme/bad": "damaged", "acme/good": "whole", "tiny": "whole"}
    problem = shelf.model_state("acme/bad")[1]
    assert problem is not None
    assert str(tmp_path) not in problem
    with pytest.raises(InvalidModel):
        shelf.library.locate_model("acme/bad")


def test_metadata_of_wrong_types_is_ignored(shelf: Shelf) -> None:
    odd = {
        "architectures": 3, "model_type": ["x"], "max_position_embeddings": "many", "torch_dtype": {},
        "text_config": [], "quantization_config": "all", "auto_map": 1,
    }  # fmt: skip
    put(shelf.cache, "acme/odd", {**shelf.model, "config.json": json.dumps(odd).encode()})
    entry = shelf.library.model("acme/odd")
    assert (entry.state, entry.architecture, entry.context_length, entry.quantization) == ("whole", None, None, None)
    assert entry.dtype == "float32"


def test_link_loops_and_outside_links_are_damaged(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    snapshot = put(shelf.cache, "acme/loop", shelf.model)
    (snapshot / "again").symlink_to(snapshot, target_is_directory=True)
    (snapshot / "self").symlink_to("self")
    out = put(shelf.cache, "acme/out", shelf.model)
    (out / "notes.txt").symlink_to(tmp_path / "secret")
    gone = put(shelf.cache, "acme/gone", shelf.model)
    gone.rename(tmp_path / "elsewhere")
    gone.symlink_to(gone.name)
    (shelf.cache / "models--acme--round").symlink_to("models--acme--round")
    states = {entry.id: (entry.state, entry.problem) for entry in shelf.library.models()}
    assert states["acme/loop"] == ("incomplete", "self is missing")
    assert states["acme/out"] == ("damaged", "notes.txt leads out of its repository's folder")
    assert states["acme/gone"][0] == "damaged"
    assert states["tiny"] == ("whole", None)


def test_unreadable_folder(shelf: Shelf) -> None:
    (shelf.cache / "models--acme--shut" / "snapshots").mkdir(parents=True)
    (shelf.cache / "models--acme--shut" / "snapshots" / ONE).write_text("")
    id = f"acme/shut@{ONE}"
    assert shelf.model_state(id) == ("damaged", "its folder in the cache cannot be read (Not a directory)")
    assert shelf.library.locate_model("tiny").name == "tiny"


def test_fifty_entries_in_a_tenth_of_a_second(shelf: Shelf) -> None:
    for number in range(50):
        put(shelf.cache, f"acme/model-{number}", shelf.model)
    assert len(shelf.library.models()) == 51
    tries = []
    for _ in range(5):
        start = time.process_time()
        shelf.library.models()
        tries.append(time.process_time() - start)
    assert min(tries) < 0.1


# -------------------------------------------------------------------------------------------------------- local folders


def test_imported_model_is_a_link(shelf: Shelf, tiny_model: Path) -> None:
    entry = shelf.library.import_model(tiny_model, "mine")
    assert (entry.id, entry.origin, entry.state) == ("mine", "imported", "whole")
    assert shelf.library.locate_model("mine").folder.resolve() == tiny_model
    freed = shelf.library.delete_model("mine")
    assert (freed.bytes, freed.kept) == (0, entry.size)
    assert contents(tiny_model) == shelf.model
    assert [entry.id for entry in shelf.library.models()] == ["tiny"]


def test_imported_sae_has_the_name_of_its_folder(shelf: Shelf, tiny_sae: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my.sae-1"
    folder.mkdir()
    for name, content in shelf.sae.items():
        (folder / name).write_bytes(content)
    assert shelf.library.import_sae(folder).id == "my.sae-1"
    (folder / "sae_weights.safetensors").unlink()
    assert shelf.library.sae("my.sae-1").state == "incomplete"
    folder.rename(tmp_path / "gone")
    entry = shelf.library.sae("my.sae-1")
    assert (entry.state, entry.problem) == ("damaged", "the folder it was imported from is gone")
    shelf.library.delete_sae("my.sae-1")
    assert [entry.id for entry in shelf.library.saes()] == ["tiny-sae"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-x", "a" * 97, "naïve", "a b"])
def test_invalid_names_are_rejected(name: str, shelf: Shelf, tiny_model: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be a name"):
        shelf.library.import_model(tiny_model, name)


def test_used_names_are_rejected(shelf: Shelf, tiny_model: Path) -> None:
    shelf.library.import_model(tiny_model, "mine")
    for name in ("mine", "tiny"):
        with pytest.raises(Conflict, match=f"has a '{name}' already"):
            shelf.library.import_model(tiny_model, name)


def test_incomplete_folders_are_not_linked(shelf: Shelf, tmp_path: Path, tiny_sae: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere", tiny_sae):
        with pytest.raises(InvalidModel):
            shelf.library.import_model(folder, "x")
    with pytest.raises(InvalidSae, match="no SAE found"):
        shelf.library.import_sae(tmp_path / "empty")
    assert [*shelf.home.model_links.iterdir(), *shelf.home.sae_links.iterdir()] == []


def test_link_to_itself_does_not_hide_others(shelf: Shelf) -> None:
    """As after an import from the folder that contains the link."""
    for folder, entries in ((shelf.home.model_links, shelf.library.models), (shelf.home.sae_links, shelf.library.saes)):
        folder.mkdir(exist_ok=True)
        before = [entry.id for entry in entries()]
        (folder / "loop").symlink_to(folder / "loop")
        assert sorted(entry.id for entry in entries()) == sorted([*before, "loop"])


def test_builtin_model_is_listed_once_it_exists(tmp_path: Path, tiny_model: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    library = Library(home, Database(home.database), {"demo": tmp_path / "demo"})
    assert library.models() == []
    shutil.copytree(tiny_model, tmp_path / "demo")
    assert [(entry.id, entry.origin, entry.state) for entry in library.models()] == [("demo", "builtin", "whole")]
