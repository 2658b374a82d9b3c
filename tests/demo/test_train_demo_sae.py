"""The tool that trains the demo's SAE: small, seeded, and its output readable by the package."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import millm.demo
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from tools import train_demo_sae as tool

LAYER, FEATURES, K, STEPS = 1, 192, 8, 200
SHIPPED = Path(millm.demo.__file__).parent / "sae"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of common words at random."""
    words = ["the", "sea", "is", "wide", "and", "ships", "are", "small", "tell", "me", "about", "sky", "one", "day"]
    chance = random.Random(0)
    lines = [" ".join(chance.choices(words, k=12)).capitalize() + "." for _ in range(1500)]
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def train(model: Path, text: Path, out: Path, *more: str) -> dict[str, object]:
    tool.main([
        *("--model", str(model), "--text", str(text), "--out", str(out), "--layer", str(LAYER)),
        *("--features", str(FEATURES), "--k", str(K), "--steps", str(STEPS), "--batch", "256"),
        *("--context", "64", "--tokens", "8000", "--held-out-tokens", "1000", "--device", "cpu", *more),
    ])  # fmt: skip
    return json.loads((out / "measurements.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def trained(tiny_model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sae")
    train(tiny_model, text, out)
    return out


@pytest.fixture(scope="module")
def activations(tiny_model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> tool.Activations:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    texts = tool.contexts(tool.read_pieces([text]), AutoTokenizer.from_pretrained(tiny_model), 64)
    return tool.collect(model, texts, LAYER, 3000, tmp_path_factory.mktemp("rows") / "rows.npy")


def test_training_reduces_the_loss(trained: Path) -> None:
    figures = json.loads((trained / "measurements.json").read_text("utf-8"))
    curve = [explained for _, explained in figures["curve"]]
    assert curve[-1] > curve[0] + 0.3
    assert figures["variance_explained"] > 0.45
    assert figures["l0"] == pytest.approx(K, rel=0.15)
    assert figures["tokens"] + figures["outliers"] == 1000


def test_same_seed_gives_the_same_file(trained: Path, tiny_model: Path, text: Path, tmp_path: Path) -> None:
    def weights(folder: Path) -> bytes:
        return (folder / "sae_weights.safetensors").read_bytes()

    train(tiny_model, text, tmp_path / "again")
    assert weights(tmp_path / "again") == weights(trained)
    train(tiny_model, text, tmp_path / "other", "--seed", "1")
    assert weights(tmp_path / "other") != weights(trained)


def test_folder_has_the_shipped_layout(trained: Path) -> None:
    ours, shipped = (json.loads((folder / "cfg.json").read_text("utf-8")) for folder in (trained, SHIPPED))
    assert ours.keys() == shipped.keys()
    assert ours["metadata"].keys() == shipped["metadata"].keys()
    assert ours["metadata"]["hook_name"] == f"blocks.{LAYER}.hook_resid_post"
    mine, theirs = tool.load(trained), tool.load(SHIPPED)
    for name, tensor in vars(theirs).items():
        assert vars(mine)[name].dtype == tensor.dtype, name
        assert vars(mine)[name].ndim == tensor.ndim, name


def test_package_reads_the_same_sae(trained: Path, activations: tool.Activations, tmp_path: Path) -> None:
    x = next(activations.once())
    product, own = SparseAutoencoder.open(canonicalise(trained, tmp_path)), tool.load(trained)
    torch.testing.assert_close(product.encode(x), own.encode(x))
    torch.testing.assert_close(product.reconstruct(x), own.decode(own.encode(x)))


def test_measurement_is_reproducible(trained: Path, tiny_model: Path, text: Path, tmp_path: Path) -> None:
    first = json.loads((trained / "measurements.json").read_text("utf-8"))
    again = train(tiny_model, text, tmp_path, "--measure", str(trained))
    assert {**again, "curve": None} == {**first, "curve": None}
    assert not (tmp_path / "cfg.json").exists()


def test_folding_preserves_the_function(activations: tool.Activations) -> None:
    x = next(activations.once())
    torch.manual_seed(0)
    trainee, scale = tool.Trainee(x.shape[1], FEATURES, K), tool.Scale.of(x)
    with torch.no_grad():
        for parameter in (trainee.encoder_bias, trainee.bias):
            parameter.normal_(0, 0.1)
        _, active, smallest = trainee(scale(x))
        sae = tool.fold(trainee, scale, float(smallest) * 0.999)
        folded, reconstruction = sae.encode(x), (active @ trainee.decoder + trainee.bias) / scale.factor + scale.mean
    settled = (active == 0) == (folded == 0)  # float16 may move a value across the threshold
    assert settled.float().mean() > 0.999
    torch.testing.assert_close((folded * scale.factor)[settled], active[settled], rtol=5e-3, atol=5e-3)
    rows = settled.all(1)
    torch.testing.assert_close(sae.decode(folded)[rows], reconstruction[rows], rtol=5e-3, atol=2e-2)


def test_batch_top_k_has_k_per_token_on_average(activations: tool.Activations) -> None:
    x = next(activations.batches(128, seed=0))
    with torch.no_grad():
        _, active, smallest = tool.Trainee(x.shape[1], FEATURES, K)(x - x.mean(0))
    assert int((active > 0).sum()) == K * 128
    assert float(active[active > 0].min()) == float(smallest)


def test_activations_are_the_layers_output_after_position_0(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    texts = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
    for ids, activations in zip(texts, tool.residuals(model, texts, LAYER), strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[LAYER + 1][0, 1:]
        torch.testing.assert_close(activations, expected, rtol=1e-4, atol=1e-4)


def test_outliers_are_excluded(tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.embed_tokens.weight[9] *= 1000
    found = tool.collect(model, [[5, 6, 7, 9, 8], [9, 10, 11, 12]], LAYER, 100, tmp_path / "rows.npy")
    assert found.rows.shape[0] == 7
    assert found.inliers.tolist() == [0, 1, 3, 4, 5, 6]  # the first 9 goes for its norm, the second for its position
    assert sum(len(x) for x in found.once(size=4)) == 6


def test_epoch_visits_each_row_about_once() -> None:
    rows = np.arange(2048, dtype=np.float16)[:, None]
    seen = torch.cat(list(itertools.islice(tool.Activations(rows, np.arange(2048), 1.0).batches(256, seed=3), 8)))
    assert sorted(seen[:, 0].tolist()) == list(range(2048))
    assert seen[:, 0].tolist() != list(range(2048))


def test_held_out_text_is_excluded_from_training() -> None:
    pieces = [f"Piece number {number}." for number in range(200)]
    training, held_out = tool.split(list(pieces), 0.1, seed=0)
    lower = {piece for piece in held_out if piece in pieces}
    assert len(lower) == 10
    assert {piece.lower() for piece in training}.isdisjoint(piece.lower() for piece in held_out)
    assert {*training, *held_out} > {*pieces}
    assert 5 < sum(piece.isupper() for piece in training) < 40


def test_training_on_the_models_own_answers(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    activations = tool.chat_contexts(AutoModelForCausalLM.from_pretrained(tiny_model), tokenizer, samples=2, length=64)
    assert len(activations) == 2
    for ids, prompt in zip(activations, tool.PROMPTS, strict=False):
        assert tokenizer.decode(ids).startswith(f"<|im_start|>user\n{prompt}"[:20])
        assert len(ids) <= 64


def test_python_documentation_is_available_as_text() -> None:
    assert "Copy an object" in tool.docstrings(Path(json.__file__)) or "JSON" in tool.docstrings(Path(json.__file__))
    assert sum(len(text) for text in itertools.islice(tool.python_documentation(), 50)) > 50_000
