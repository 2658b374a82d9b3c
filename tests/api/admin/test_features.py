"""Labels over HTTP: search, edit, delete, import and export; feature cards."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.fixtures.tiny import FEATURES

LINES = [
    {"index": 3, "label": "the sea", "max_act": 4.0, "density": 0.25, "source": "test"},
    {"index": 7, "label": "sea shells", "source": "test"},
    {"index": 9, "max_act": 2.0, "source": "test"},
]


@pytest.fixture(autouse=True)
def labelled(api: httpx.Client) -> Iterator[None]:
    """Three labels, reset after each test."""
    put = api.post("/api/features/labels", content="\n".join(map(json.dumps, LINES)))
    assert put.raise_for_status().json() == {"sae": "tiny", "labels": 3}
    yield
    for line in api.get("/api/features/labels").text.splitlines():
        api.delete(f"/api/features/{json.loads(line)['index']}/label").raise_for_status()
    assert api.get("/api/features/labels").text == ""


def search(api: httpx.Client, **query: Any) -> tuple[int, list[int]]:
    answer = api.get("/api/features/search", params=query).raise_for_status().json()
    return answer["total"], [one["index"] for one in answer["features"]]


def test_label_search_pages(api: httpx.Client) -> None:
    assert search(api) == search(api, q=" ") == search(api, sae="tiny") == (2, [3, 7])
    assert search(api, q="SEA") == (2, [3, 7])
    assert search(api, q="sea", limit=1, offset=1) == (2, [7])
    assert search(api, q="9") == (1, [9])
    assert search(api, q="sky") == (0, [])
    found = api.get("/api/features/search", params={"q": "the"}).json()["features"]
    assert found == [{**LINES[0], "sae": "tiny"}]


def test_exported_labels_equal_imported_ones(api: httpx.Client) -> None:
    exported = api.get("/api/features/labels")
    assert exported.headers["content-type"] == "application/jsonl"
    assert "labels.jsonl" in exported.headers["content-disposition"]
    told = [json.loads(line) for line in exported.text.splitlines()]
    assert [{name: value for name, value in one.items() if name != "edited"} for one in told] == LINES
    assert api.post("/api/features/labels", content=exported.content).status_code == 200
    again = [json.loads(line) for line in api.get("/api/features/labels").text.splitlines()]
    assert [{**one, "edited": 0} for one in again] == [{**one, "edited": 0} for one in told]


def test_label_edit_can_be_reverted(api: httpx.Client) -> None:
    put = api.put("/api/features/5/label", json={"label": " ships ", "max_act": 8}).raise_for_status().json()
    assert put == {"sae": "tiny", "index": 5, "label": "ships", "max_act": 8.0, "density": None, "source": "user"}
    assert search(api, q="ship") == (1, [5])
    edited = api.put("/api/features/3/label", json={"label": "waves"}, params={"sae": "tiny"}).json()
    assert (edited["label"], edited["max_act"], edited["source"]) == ("waves", 4.0, "user")
    assert api.delete("/api/features/5/label").json()["label"] == ""
    assert search(api, q="ship") == (0, [])


def test_new_max_act_applies_to_later_requests(api: httpx.Client, chat: dict[str, Any]) -> None:
    def steering(strength: float, unit: str) -> Any:
        feature = {"index": 11, "strength": strength, "unit": unit}
        return api.post("/v1/chat/completions", json={**chat, "steering": {"features": [feature]}})

    assert steering(2, "max_act").status_code == 400  # nobody knows its maximum
    api.put("/api/features/11/label", json={"label": "stars", "max_act": 3.5}).raise_for_status()
    by_unit, raw = steering(2, "max_act").json()["millm"], steering(7, "raw").json()["millm"]
    assert by_unit["steering"] == raw["steering"]
    api.delete("/api/features/11/label").raise_for_status()
    assert steering(2, "max_act").status_code == 400


def test_card_matches_the_decoder_row(api: httpx.Client, tiny_model, tiny_sae) -> None:
    card = api.get("/api/features/3").raise_for_status().json()
    assert card == api.get("/api/features/3", params={"sae": "tiny"}).json()
    decoder = load_file(tiny_sae / "sae_weights.safetensors")["W_dec"]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    logits = model.lm_head.weight @ (model.model.norm.weight * decoder[3])
    promoted, suppressed = logits.topk(10), (-logits).topk(10)
    assert [one["id"] for one in card["promoted"]] == promoted.indices.tolist()
    assert [one["id"] for one in card["suppressed"]] == suppressed.indices.tolist()
    cosines = decoder @ decoder[3]
    cosines[3] = -1
    assert [one["index"] for one in card["neighbours"]] == cosines.topk(10).indices.tolist()
    assert [one["cosine"] for one in card["neighbours"]] == pytest.approx(cosines.topk(10).values.tolist(), abs=1e-5)
    assert card["decoder_norm"] == pytest.approx(1.0, abs=1e-5)
    norm = api.get("/api/attachments").json()["attachments"][0]["residual_norm"]
    assert card["strengths"] == {"half_norm": pytest.approx(norm / 2), "half_max_act": 2.0}
    assert (card["label"], card["source"], card["max_act"], card["density"]) == ("the sea", "test", 4.0, 0.25)
    assert (card["layer"], card["hook_point"], card["neuronpedia"]) == (1, "blocks.1.hook_resid_post", None)
    labels = {one["index"]: one["label"] for one in api.get("/api/features/search").json()["features"]}
    assert {one["index"]: one["label"] for one in card["neighbours"]} == {
        one["index"]: labels.get(one["index"]) for one in card["neighbours"]
    }


def test_card_has_observed_statistics(api: httpx.Client, chat: dict[str, Any]) -> None:
    api.post("/v1/chat/completions", json={**chat, "activations": {"features": [23]}}).raise_for_status()
    (seen,) = api.get("/api/monitor/statistics", params={"sae": "tiny", "feature": 23}).json()["features"]
    assert api.get("/api/features/23").json()["observed"] == seen
    assert seen["tokens"] > 0


def test_card_without_a_label(api: httpx.Client) -> None:
    card = api.get(f"/api/features/{FEATURES - 1}").raise_for_status().json()
    assert (card["label"], card["source"], card["max_act"], card["strengths"]["half_max_act"]) == (None,) * 4


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("GET", f"/{FEATURES}", None, 422, "index"),
        ("GET", "/-1", None, 422, "index"),
        ("GET", "/99999999999", None, 422, "index"),
        ("GET", "/x", None, 422, "index"),
        ("GET", "/3?sae=nope", None, 404, "sae"),
        ("GET", "/search?sae=nope", None, 404, "sae"),
        ("GET", "/search?limit=0", None, 422, "limit"),
        ("GET", "/search?q=" + 501 * "x", None, 422, "q"),
        ("PUT", f"/{FEATURES}/label", {"label": "x"}, 422, "index"),
        ("PUT", "/3/label", {"label": " "}, 422, "label"),
        ("PUT", "/3/label", {"label": 501 * "x"}, 422, "label"),
        ("PUT", "/3/label", {"label": "a\u0000b"}, 422, None),
        ("PUT", "/3/label", {"label": "\u202egnp"}, 422, None),
        ("PUT", "/3/label", {"label": "x", "max_act": 0}, 422, "max_act"),
        ("PUT", "/3/label", {"label": "x", "max_act": "1"}, 422, "max_act"),
        ("PUT", "/3/label", {"label": "x", "index": 4}, 422, "index"),
        ("PUT", "/3/label", None, 422, None),
        ("DELETE", f"/{FEATURES}/label", None, 422, "index"),
        ("POST", "/labels", None, 422, None),
        ("POST", "/labels", {"index": FEATURES, "label": "x"}, 422, "index"),
        ("POST", "/labels", [1], 422, None),
        ("POST", "/labels?sae=nope", {"index": 1}, 404, "sae"),
    ],
)
def test_invalid_requests_change_nothing(
    api: httpx.Client, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    before = api.get("/api/features/labels").text
    refused = api.request(method, f"/api/features{path}", json=body)
    assert refused.status_code == status, refused.text
    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert param is None or error["param"] == param
    assert api.get("/api/features/labels").text == before


def test_invalid_label_line_is_named_and_nothing_stored(api: httpx.Client) -> None:
    before = api.get("/api/features/labels").text
    refused = api.post("/api/features/labels", content='{"index": 20, "label": "fine"}\n\n{"index": "x"}\n')
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (422, "invalid_import")
    assert error["message"].startswith("line 3: ")
    assert api.get("/api/features/labels").text == before
