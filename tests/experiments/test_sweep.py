"""Sweeps: the figures match plain transformers; a disconnect cancels the sweep."""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from millm.experiments.run import repeated_trigram_share
from tests.experiments.asking import MESSAGES, answered, events
from tests.fixtures.inside import Inside
from tests.fixtures.tiny import HOOK_LAYER, write_sae

ADD = {"features": [{"index": 3, "strength": 4.0}]}
SWEEP: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 10, "temperature": 0.8, "steering": ADD}
WRITTEN: dict[str, Any] = {"logit_bias": {"0": -100, "1": -100}}
"""No special tokens: those are not told by their bytes."""


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def direction(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Feature 3's decoder row from the SAE's file."""
    folder = write_sae(tmp_path_factory.mktemp("sae") / "tiny")
    return load_file(folder / "sae_weights.safetensors")["W_dec"][3]


@contextmanager
def adding(model: PreTrainedModel, vector: Tensor) -> Iterator[None]:
    """Add a vector at every position but the first, by a plain torch hook."""

    def hook(_module: object, _given: object, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        hidden[:, 1:] += vector
        return output

    handle = model.model.layers[HOOK_LAYER].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def log_probabilities(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> Tensor:
    """Log probabilities of the vocabulary at the answer's positions."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].float()
    return torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]


def test_figures_match_plain_transformers(
    api: httpx.Client, inside: Inside, plain: PreTrainedModel, direction: Tensor, tiny_model: Path
) -> None:
    assert inside.state.model
    ids = {inside.state.model.tokenizer.token_bytes(id): id for id in range(inside.state.model.facts.vocab_size)}
    _, *points, end = events(api, "/api/sweep", {**SWEEP, **WRITTEN, "scales": [1.5, -1], "seeds": [3, 4]})
    assert [(point["scale"], point["seed"]) for point in points] == [
        (-1, 3), (-1, 4), (0, 3), (0, 4), (1.5, 3), (1.5, 4),
    ]  # fmt: skip
    assert [point["done"] for point in points] == [1, 2, 3, 4, 5, 6]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    for point in points:
        scaled = {"features": [{"index": 3, "strength": 4.0 * point["scale"]}]} if point["scale"] else None
        alone = answered(api, seed=point["seed"], steering=scaled, max_tokens=10, logprobs=True, **WRITTEN)
        choice = alone["choices"][0]
        assert (point["text"], point["finish_reason"]) == (choice["message"]["content"], choice["finish_reason"])
        answer = [ids[bytes(one["bytes"])] for one in choice["logprobs"]["content"]]
        assert len(answer) == point["tokens"]
        base = log_probabilities(plain, prompt, answer)
        nll = -base.gather(-1, torch.tensor(answer)[:, None]).mean().item()
        assert point["nll"] == pytest.approx(nll, rel=1e-3)
        assert point["perplexity"] == pytest.approx(math.exp(nll), rel=1e-2)
        with adding(plain, direction * 4.0 * point["scale"]):
            steered = log_probabilities(plain, prompt, answer)
        kl = (steered.exp() * (steered - base)).sum(-1).mean().item()
        assert point["kl"] == pytest.approx(kl, rel=1e-2, abs=1e-5)
    for means in end["summary"]:
        of = [point for point in points if point["scale"] == means["scale"]]
        assert means["perplexity"] == pytest.approx(math.exp(sum(point["nll"] for point in of) / 2))
        assert means["repetition"] == pytest.approx(sum(point["repetition"] for point in of) / 2)


def test_repetition_is_the_share_of_repeated_trigrams() -> None:
    text = "the sea the sea the sea is wide and the sea the sky"
    words = text.split()
    counted = Counter(zip(words, words[1:], words[2:], strict=False))
    assert repeated_trigram_share(text) == pytest.approx(sum(count - 1 for count in counted.values()) / counted.total())
    assert repeated_trigram_share("The Sea is the sea IS the sea") == pytest.approx(3 / 6)
    assert [repeated_trigram_share(short) for short in ("", "one", "one two", "one two three")] == [0, 0, 0, 0]


def test_system_prompt_is_its_own_point(api: httpx.Client) -> None:
    asked = "Answer in capital letters only."
    body = {**SWEEP, "scales": [1, 2], "seeds": [3], "system_prompt": asked, "stream": False}
    whole = api.post("/api/sweep", json=body).raise_for_status().json()
    assert [point["scale"] for point in whole["points"]] == [0, 1, 2, None]
    alone = answered(
        api, seed=3, steering=None, max_tokens=10, messages=[{"role": "system", "content": asked}, *MESSAGES]
    )
    assert whole["points"][-1]["text"] == alone["choices"][0]["message"]["content"]
    assert whole["points"][-1]["kl"] is None
    assert alone["usage"]["prompt_tokens"] == whole["prompt_tokens"] + whole["system_prompt_tokens"]


def test_disconnect_cancels_the_sweep(api: httpx.Client, inside: Inside) -> None:
    endless = {**SWEEP, "max_tokens": 200, "ignore_eos": True, "scales": [1, 2, 3, 4], "seeds": [1, 2, 3]}
    with api.stream("POST", "/api/sweep", json=endless) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        assert json.loads(next(lines).removeprefix("data: "))["total"] == 15
    left = time.monotonic()
    while inside.call(lambda: inside.state.engine.in_flight):
        assert time.monotonic() - left < 2
        time.sleep(0.01)
    assert answered(api, temperature=0)["choices"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"scales": [1]}, "scales"),
        ({"scales": [1, 1]}, None),
        ({"scales": [0, 11]}, "scales.1"),
        ({"scales": [place / 10 for place in range(22)]}, "scales"),
        ({"scales": ["1", 2]}, "scales.0"),
        ({"seeds": []}, "seeds"),
        ({"seeds": list(range(9))}, "seeds"),
        ({"seeds": [1, 1]}, None),
        ({"seed": 1}, None),
        ({"max_tokens": 257}, "max_tokens"),
        ({"steering": None}, "steering"),
        ({"steering": {"features": [{"index": 3, "mode": "ablate"}]}}, "steering.features"),
        ({"steering": {"features": [{"index": 3, "strength": 2.0, "mode": "scale"}]}}, "steering.features"),
        ({"steering": {"features": [{"index": 3, "strength": 9e5}]}}, None),
    ],
)
def test_invalid_sweeps_are_rejected_before_generation(
    api: httpx.Client, inside: Inside, changes: dict[str, Any], param: str | None
) -> None:
    refused = api.post("/api/sweep", json={**SWEEP, "scales": [1, 2], **changes})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (422, param), error
    assert inside.call(lambda: inside.state.engine.in_flight) == 0


def calibrated(api: httpx.Client, **changes: Any) -> dict[str, Any]:
    body = {**SWEEP, "seeds": [3, 4], **changes}
    return dict(api.post("/api/calibrate", json=body).raise_for_status().json())


def test_suggestion_is_the_largest_within_the_guard(api: httpx.Client) -> None:
    steering = {"features": [{"index": 3, "strength": 40.0}]}
    before = api.get("/api/steering").json()
    found = calibrated(api, steering=steering, guard={"max_perplexity_ratio": 1.5, "max_repetition": 1.0})
    assert api.get("/api/steering").json() == before
    base, *tried = found["points"]
    assert base["scale"] == 0
    assert len(tried) <= 6
    keeps = {point["scale"]: point["perplexity"] <= 1.5 * base["perplexity"] for point in tried}
    assert found["scale"] is None or keeps[found["scale"]]
    assert not all(keeps.values())
    larger = [scale for scale in keeps if scale > (found["scale"] or 0)]
    assert not keeps[min(larger)]
    if found["scale"]:
        assert found["strengths"][0]["strength"] == pytest.approx(40 * found["scale"])


def test_notes_at_both_ends_of_the_search(api: httpx.Client) -> None:
    loose = calibrated(api, guard={"max_perplexity_ratio": 1000.0, "max_repetition": 1.0}, most=1.5)
    assert (loose["scale"], len(loose["points"])) == (1.5, 2)
    assert "`most` may be larger" in loose["note"]
    steering = {"features": [{"index": 3, "strength": 9000.0}]}
    tight = calibrated(api, steering=steering, guard={"max_perplexity_ratio": 1.01, "max_repetition": 1.0})
    assert (tight["scale"], tight["strengths"], len(tight["points"])) == (None, [], 7)
    assert "nothing is suggested" in tight["note"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"guard": {"max_perplexity_ratio": 1}}, "guard.max_perplexity_ratio"),
        ({"guard": {"max_repetition": 0}}, "guard.max_repetition"),
        ({"guard": {"ratio": 2}}, "guard.ratio"),
        ({"most": 0}, "most"),
        ({"most": 11}, "most"),
        ({"stream": True}, None),
    ],
)
def test_invalid_guards_are_rejected(api: httpx.Client, changes: dict[str, Any], param: str | None) -> None:
    refused = api.post("/api/calibrate", json={**SWEEP, **changes})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, param), refused.text


def test_sweep_defaults(api: httpx.Client) -> None:
    begun, *_ = events(api, "/api/sweep", {"messages": MESSAGES, "profile": "push", "scales": [1, 2], "max_tokens": 2})
    assert begun == {"model": "tiny-llama", "scales": [0, 1, 2], "seeds": [1, 2], "total": 6}
