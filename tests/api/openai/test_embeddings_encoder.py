"""Encoders served: a tiny one for everything, and a real one against sentence-transformers' own definition."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from tests.fixtures.encoders import LONGEST, WIDTH, minilm, write_encoder, write_modules
from tests.fixtures.process import Server, running

TEXTS = ["The sea is wide.", "the ships are small", "one, two, three!", "Zzyzx 海"]

PAIRS = [
    ("A man is playing a guitar.", "Somebody plays the guitar.", "The stock market fell on Monday."),
    ("How do I boil an egg?", "What is the way to cook an egg?", "Which planet is the largest?"),
    ("The cat sleeps on the sofa.", "A kitten naps on the couch.", "The train leaves at noon."),
]
"""A sentence, one that means nearly the same, and one about something else."""


@pytest.fixture(scope="module", params=["mean_tokens", "cls_token"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    root = tmp_path_factory.mktemp("encoders")
    folder = write_encoder(root / "tiny-bert", pooling=request.param)
    with running("serve", str(folder), model="tiny-bert", home=root / "home") as server:
        yield server, folder


def embed(server: Server, *texts: str, **more: Any) -> np.ndarray:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=30) as client:
        answer = client.embeddings.create(model=server.model, input=list(texts), **more)
        return np.array([entry.embedding for entry in answer.data], dtype=np.float32)


def defined(folder: Path, tokenizer: Any, texts: list[str], *, cls: bool = False) -> np.ndarray:
    """sentence-transformers' Transformer → Pooling → Normalize over one padded batch."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state  # [B, T, d]
    mask = batch["attention_mask"][..., None].float()
    pooled = hidden[:, 0] if cls else (hidden * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
    return torch.nn.functional.normalize(pooled, dim=-1).numpy()


def test_encoder_vectors_equal_definition(encoder: tuple[Server, Path]) -> None:
    server, folder = encoder
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    found = embed(server, *TEXTS)
    is_cls = "cls_token" in (folder / "1_Pooling" / "config.json").read_text("utf-8")
    np.testing.assert_allclose(found, defined(folder, tokenizer, TEXTS, cls=is_cls), atol=2e-6)
    assert embed(server, *TEXTS, dimensions=WIDTH // 2).shape == (len(TEXTS), WIDTH // 2)


def test_encoder_rejects_generation(encoder: tuple[Server, Path]) -> None:
    server, _ = encoder
    messages = [{"role": "user", "content": "hello"}]
    requested = {"/chat/completions": {"messages": messages}, "/completions": {"prompt": "hello"}}
    for path, body in requested.items():
        answer = httpx.post(f"{server.base_url}{path}", json={"model": "tiny-bert", **body})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("model_cannot_generate", "model")
        assert "/v1/embeddings" in error["message"]
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    facts = httpx.get(f"{server.url}/api/status").json()["model"]["facts"]
    assert (facts["generates"], facts["runner"]) == (False, "encoder")
    page = httpx.get(server.url).text
    assert "v1/embeddings" in page
    assert "v1/chat/completions" not in page


def test_recipe_limit_overrides_model_limit(encoder: tuple[Server, Path]) -> None:
    server, _ = encoder
    fitting = " ".join(["1"] * (LONGEST - 2))
    assert embed(server, fitting).shape == (1, WIDTH)
    answer = httpx.post(f"{server.base_url}/embeddings", json={"model": "tiny-bert", "input": fitting + " 1"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert f"{LONGEST} tokens, and `input.0` has {LONGEST + 1}" in error["message"]


def test_dense_layer_is_rejected_before_loading(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "dense")
    write_modules(folder, "Transformer", "Pooling", "Dense")
    with (
        pytest.raises(AssertionError, match=r"'Dense'"),
        running("serve", str(folder), model="dense", home=tmp_path / "home"),
    ):
        raise AssertionError("it started")


# ------------------------------------------------------------------------------------------------------- a real one


@pytest.fixture(scope="module")
def real(demo_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = minilm(demo_home)
    with running("serve", str(folder), model=folder.name, home=tmp_path_factory.mktemp("home")) as server:
        yield server, folder


@pytest.mark.demo
def test_all_minilm_equals_sentence_transformers(real: tuple[Server, Path]) -> None:
    server, folder = real
    sentences = [sentence for triple in PAIRS for sentence in triple]
    found = embed(server, *sentences)
    np.testing.assert_allclose(found, defined(folder, AutoTokenizer.from_pretrained(folder), sentences), atol=2e-6)
    for index in range(0, len(sentences), 3):
        sentence, same, other = found[index : index + 3]
        assert sentence @ same > 0.6
        assert sentence @ other < 0.2
