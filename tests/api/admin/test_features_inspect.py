"""Inspection and contrast compared with a plain hook on the model, and the resulting profile."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from millm.profiles.schema import Profile
from tests.fixtures.close import TOLERANCE
from tests.fixtures.process import Server
from tests.fixtures.tiny import CONTEXT, FEATURES, HOOK_LAYER

TEXT = "The ships are small and the sea is wide."
CAPS = [
    "STOP DOING THAT RIGHT NOW!", "WHO LEFT THE DOOR OPEN?", "THIS IS THE BEST DAY EVER", "LISTEN TO ME, ALL OF YOU",
]  # fmt: skip
CALM = [text.lower() for text in CAPS]
YELLING = 135
"""Of the demo SAE: text in ALL CAPS."""


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tiny_sae: Path) -> Any:
    """Token ids → activations [T, F] by transformers and the SAE's definition."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    weights = load_file(tiny_sae / "sae_weights.safetensors")
    seen: list[torch.Tensor] = []
    model.model.layers[HOOK_LAYER].register_forward_hook(
        lambda _module, _inputs, out: seen.append((out[0] if isinstance(out, tuple) else out).detach())
    )

    def activations(ids: list[int]) -> torch.Tensor:
        seen.clear()
        with torch.no_grad():
            model(torch.tensor([ids]))
        before = seen[0].reshape(len(ids), -1) @ weights["W_enc"] + weights["b_enc"]
        return before * (before > weights["threshold"])

    return activations


def inspect(api: httpx.Client, **body: Any) -> dict[str, Any]:
    told: dict[str, Any] = api.post("/api/features/inspect", json=body).raise_for_status().json()
    return told


def test_tokens_match_a_plain_hook(api: httpx.Client, plain: Any, tiny_model: Path) -> None:
    told = inspect(api, text=TEXT, top_k=FEATURES, features=[3, 7])
    ids = AutoTokenizer.from_pretrained(tiny_model)(TEXT).input_ids
    assert [token["id"] for token in told["tokens"]] == ids
    assert "".join(token["token"] for token in told["tokens"]) == TEXT
    assert [token["counts"] for token in told["tokens"]] == [False] + [True] * (len(ids) - 1)
    for token, row in zip(told["tokens"], plain(ids).tolist(), strict=True):
        values = [one["activation"] for one in token["top"]]
        assert values == sorted(values, reverse=True)
        found = {one["index"]: one["activation"] for one in token["top"]}
        assert [found.get(index, 0.0) for index in range(FEATURES)] == pytest.approx(row, abs=TOLERANCE)
        assert token["values"] == pytest.approx([row[3], row[7]], abs=TOLERANCE)


def test_summary_covers_the_counted_tokens(api: httpx.Client) -> None:
    told = inspect(api, text=TEXT, top_k=FEATURES, features=[3], limit=1000)
    counted = [token for token in told["tokens"] if token["counts"]]
    assert told["counted"] == len(counted)
    for one in told["features"]:
        at = [top["activation"] for token in counted for top in token["top"] if top["index"] == one["index"]]
        assert one["count"] == len(at)
        assert one["max"] == pytest.approx(max(at, default=0.0), rel=1e-4)
        assert one["mean"] == pytest.approx(sum(at) / len(counted), rel=1e-4)
    assert told["fired"] == sum(one["count"] > 0 for one in told["features"])
    few = inspect(api, text=TEXT, top_k=0, features=[3], limit=2)
    assert [one["index"] for one in few["features"]][:2] == [one["index"] for one in told["features"]][:2]
    assert 3 in [one["index"] for one in few["features"]]
    assert all(token["top"] == [] for token in few["tokens"])


def test_messages_are_tokenized_as_in_chats(api: httpx.Client, chat: dict[str, Any]) -> None:
    told = inspect(api, messages=chat["messages"], features=[3])
    ids = [token["id"] for token in told["tokens"]]
    assert "".join(token["token"] for token in told["tokens"]).endswith("<|im_start|>assistant\n")
    watch = {"features": [3], "tokens": "prompt"}
    answer = api.post("/v1/chat/completions", json={**chat, "activations": watch}).json()
    assert answer["usage"]["prompt_tokens"] == len(ids)
    seen = [entry["values"] for entry in answer["millm"]["activations"]]
    assert [token["values"] for token in told["tokens"]] == [pytest.approx(one, abs=1e-3) for one in seen]
    assert inspect(api, input_ids=ids, features=[3])["features"] == told["features"]


@pytest.mark.parametrize(("ids", "counted"), [([90], [0]), ([1, 90], [1]), ([90, 1], [1]), ([1, 90, 2, 91], [1, 3])])
def test_counted_tokens_match_the_scan(api: httpx.Client, ids: list[int], counted: list[int]) -> None:
    told = inspect(api, input_ids=ids)
    assert [token["position"] for token in told["tokens"] if token["counts"]] == counted
    assert told["counted"] == len(counted)


def contrast(api: httpx.Client, a: list[str], b: list[str], **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = api.post("/api/features/contrast", json={"a": a, "b": b, **more}).raise_for_status().json()
    return told


def test_means_match_the_texts(api: httpx.Client) -> None:
    told = contrast(api, CAPS, CALM, limit=50)
    texts = [inspect(api, text=text, top_k=0, limit=1000)["features"] for text in (*CAPS, *CALM)]
    means = [{one["index"]: one["mean"] for one in text} for text in texts]
    for one in (*told["more_in_a"], *told["more_in_b"]):
        a, b = ([text.get(one["index"], 0.0) for text in side] for side in (means[:4], means[4:]))
        assert (one["mean_a"], one["mean_b"]) == pytest.approx((sum(a) / 4, sum(b) / 4), rel=1e-4, abs=1e-6)
        assert one["auc"] == sum((x > y) + 0.5 * (x == y) for x in a for y in b) / 16
    assert [one["index"] for one in contrast(api, CALM, CAPS, limit=50)["more_in_b"]] == [
        one["index"] for one in told["more_in_a"]
    ]


def test_separators_form_an_applicable_profile(api: httpx.Client, chat: dict[str, Any]) -> None:
    told = contrast(api, CAPS, CALM, make=3, name="loud")
    profile = Profile.model_validate(told["profile"])
    assert profile.name == "loud"
    assert [one.index for one in profile.features] == [one["index"] for one in told["more_in_a"][:3]]
    assert 0.49 < sum(one.strength for one in profile.features) <= 0.5
    assert {(one.unit, one.mode, one.sae) for one in profile.features} == {("norm", "add", "tiny")}
    steering = profile.steering.model_dump(mode="json", exclude_none=True)
    receipt = api.post("/v1/chat/completions", json={**chat, "steering": steering}).raise_for_status().json()["millm"]
    assert 0.05 < receipt["delta_norm_ratio"] < 0.6
    made = api.post("/api/profiles", json=told["profile"])
    assert made.status_code in (201, 404, 405), made.text
    if made.status_code == 201:
        assert api.get("/api/profiles/loud").json()["profile"]["saes"][0]["name"] == "tiny"
        assert api.delete("/api/profiles/loud").status_code == 200


def test_equal_texts_have_no_separators(api: httpx.Client) -> None:
    told = contrast(api, CAPS, CAPS)
    assert (told["more_in_a"], told["more_in_b"], told["profile"]) == ([], [], None)


LONG = "sea " * 2 * CONTEXT


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("inspect", {}, None),
        ("inspect", None, None),
        ("inspect", {"text": "x", "input_ids": [1]}, None),
        ("inspect", {"text": ""}, "text"),
        ("inspect", {"text": 3}, "text"),
        ("inspect", {"text": LONG}, "text"),
        ("inspect", {"messages": []}, "messages"),
        ("inspect", {"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ("inspect", {"messages": [{"role": "user", "content": LONG}]}, None),
        ("inspect", {"input_ids": [10**6]}, "input_ids"),
        ("inspect", {"input_ids": [-1]}, "input_ids.0"),
        ("inspect", {"input_ids": [1] * (CONTEXT + 1)}, "input_ids"),
        ("inspect", {"text": "x", "top_k": 101}, "top_k"),
        ("inspect", {"text": "x", "top_k": FEATURES + 1}, "top_k"),
        ("inspect", {"text": "x", "features": [FEATURES]}, "features.0"),
        ("inspect", {"text": "x", "features": [1, 1]}, None),
        ("inspect", {"text": "x", "strength": 1}, "strength"),
        ("contrast", {"a": ["x"]}, "b"),
        ("contrast", {"a": [], "b": ["x"]}, "a"),
        ("contrast", {"a": ["sea"] * 65, "b": ["x"]}, "a"),
        ("contrast", {"a": ["sea", LONG], "b": ["x"]}, "a.1"),
        ("contrast", {"a": ["sea"], "b": ["sky", ""]}, "b.1"),
        ("contrast", {"a": ["sea"], "b": ["sky"], "limit": 0}, "limit"),
        ("contrast", {"a": ["sea"], "b": ["sky"], "name": "a/b"}, "name"),
    ],
)
def test_invalid_texts_are_rejected_by_name(api: httpx.Client, path: str, body: Any, param: str | None) -> None:
    refused = api.post(f"/api/features/{path}", json=body)
    assert refused.status_code == 422, refused.text
    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert param is None or error["param"] == param


def test_unattached_sae_is_named(api: httpx.Client) -> None:
    for path, body in (("inspect", {"text": "x"}), ("contrast", {"a": ["x"], "b": ["y"]})):
        refused = api.post(f"/api/features/{path}", json={**body, "sae": "nope"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "sae_not_found")


@pytest.mark.demo
def test_capital_letters_are_separated_by_a_capital_feature(demo_server: Server) -> None:
    with httpx.Client(base_url=demo_server.url, timeout=60) as api:
        told = contrast(api, CAPS, CALM)
        assert YELLING in [one["index"] for one in told["more_in_a"][:3]]
        (one,) = (one for one in told["more_in_a"] if one["index"] == YELLING)
        assert one["auc"] == 1.0
        assert one["label"] == "text in ALL CAPS (yelling)"
        assert Profile.model_validate(told["profile"]).saes[0].layer == 20
