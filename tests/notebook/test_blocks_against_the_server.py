"""Library and server: equal tokens, readings and receipts for the same steering."""

from typing import Any

import httpx
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from millm import SAE, steered, watching

TOKENS = 12
PROMPT = [1, 40, 41, 2, 43, 44, 45, 90]
"""With a special token (2) in the middle."""

ASKED: dict[str, dict[str, Any]] = {
    "add": {"features": [{"index": 3, "strength": 6.0}, {"index": 9, "strength": -4.0}]},
    "clamp": {"features": [{"index": 7, "strength": 5.0, "mode": "clamp"}]},
    "min_clamp": {"features": [{"index": 7, "strength": 3.0, "mode": "min_clamp"}]},
    "scale": {"features": [{"index": 40, "strength": 4.0, "mode": "scale"}]},
    "ablate": {"features": [{"index": 40, "mode": "ablate"}, {"index": 12, "mode": "ablate"}]},
    "norm": {"features": [{"index": 3, "strength": 0.6, "unit": "norm"}]},
    "max_act": {"features": [{"index": 3, "strength": 0.5, "unit": "max_act", "max_act": 11.0}]},
    "prompt": {"features": [{"index": 3, "strength": 6.0}], "positions": "prompt"},
    "generated": {"features": [{"index": 3, "strength": 6.0}], "positions": "generated"},
    "skip special": {"features": [{"index": 3, "strength": 6.0}], "skip": "special"},
    "skip none": {"features": [{"index": 3, "strength": 6.0}], "skip": "none"},
    "nothing": {"features": []},
}


def complete(api: httpx.Client, steering: dict[str, Any], activations: Any) -> dict[str, Any]:
    body = {"model": "tiny-llama", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    answer = api.post("/v1/completions", json={**body, "steering": steering, "activations": activations})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def generate(model: PreTrainedModel) -> list[int]:
    ids = torch.tensor([PROMPT])
    written: list[int] = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)[0, len(PROMPT) :].tolist()
    return written


@pytest.mark.parametrize("name", ASKED)
def test_one_sae_equals_the_server(
    name: str, api: httpx.Client, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, sae: SAE
) -> None:
    steering = {"positions": "all", "skip": None, **ASKED[name]}
    sae.measure(model, tokenizer)
    watched = {"features": [3, 7, 40], "top_k": 4, "tokens": "all", "sample_every": 1}
    features = [{**feature, "sae": "tiny"} for feature in steering["features"]]
    body = complete(api, {**steering, "features": features}, {**watched, "sae": "tiny"})
    with (
        steered(model, sae, **steering, tokenizer=tokenizer) as effect,
        watching(model, sae, [3, 7, 40], top_k=4) as seen,
    ):
        written = generate(model)
    assert tokenizer.decode(written, skip_special_tokens=True) == body["choices"][0]["text"]
    receipt, read = body["millm"], body["millm"]["activations"]
    assert effect.tokens_steered == receipt["tokens_steered"]
    assert effect.delta_norm_ratio == pytest.approx(receipt["delta_norm_ratio"], rel=1e-5, abs=1e-9)
    (row,) = seen
    assert row.positions == [token["position"] for token in read]
    assert row.tokens == [*PROMPT, *written[:-1]]
    torch.testing.assert_close(row.activations, torch.tensor([token["values"] for token in read]))
    assert row.top_features.tolist() == [[feature for feature, _ in token["top"]] for token in read]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("tokens", ["prompt", "generated", "all"])
def test_readings_of_two_saes_equal_the_server(
    when: Any, tokens: Any, api: httpx.Client, model: PreTrainedModel, sae: SAE, deeper_sae: Any
) -> None:
    """The upper SAE sees the steering of the lower one."""
    deeper = SAE.load(deeper_sae)
    features = [{"index": 3, "strength": 6.0, "sae": "tiny"}, {"index": 5, "strength": 4.0, "sae": "deeper"}]
    watched = {"features": [3, 5], "tokens": tokens, "when": when}
    body = complete(api, {"features": features}, [{**watched, "sae": "tiny"}, {**watched, "sae": "deeper"}])
    with (
        watching(model, sae, [3, 5], tokens=tokens, when=when) as lower,
        steered(model, sae, {3: 6.0}),
        steered(model, deeper, {5: 4.0}),
        watching(model, deeper, [3, 5], tokens=tokens, when=when) as upper,
    ):
        generate(model)
    for name, seen in (("tiny", lower), ("deeper", upper)):
        read = [entry for entry in body["millm"]["activations"] if entry["sae"] == name]
        assert seen[0].positions == [token["position"] for token in read]
        torch.testing.assert_close(seen[0].activations, torch.tensor([token["values"] for token in read]))


def test_calibration_equals_the_server(
    api: httpx.Client, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, sae: SAE
) -> None:
    attached = {entry["sae"]: entry for entry in api.get("/api/attachments").json()["attachments"]}["tiny"]
    calibration = sae.measure(model, tokenizer)
    assert calibration.residual_norm == sae.residual_norm == pytest.approx(attached["residual_norm"], rel=1e-5)
    assert calibration.l0 == pytest.approx(attached["l0"], rel=1e-5)
