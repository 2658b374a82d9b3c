"""Watches before and after steering, on chats, streams and responses, and of a profile."""

import json
from typing import Any

import httpx
import pytest
import torch

from tests.fixtures.close import assert_close
from tests.monitoring.reference_hook import MONITORED, Hooked, complete

PROMPT = [5, 9, 30, 77, 120]
CHAT = {"model": "tiny-llama", "messages": [{"role": "user", "content": "The sea."}], "temperature": 0, "max_tokens": 5}


def remembered(api: httpx.Client, id: str) -> dict[str, Any]:
    result: dict[str, Any] = api.get(f"/api/requests/{id}").raise_for_status().json()
    return result


def test_before_and_after_equal_reference_hook(api, hooked: Hooked) -> None:
    """Compares prompt tokens at the hooked layer: a delta there changes only later layers."""
    watch = {"sae": "tiny", "features": [3, 11], "top_k": 1, "tokens": "prompt", "when": "both", "sample_every": 1}
    api.put("/api/monitor", json={"watch": [watch]}).raise_for_status()
    steering = {"features": [{"index": 3, "strength": 60.0}]}
    own = {"features": [11], "tokens": "prompt", "when": "after"}
    answer = complete(api, PROMPT, steering=steering, activations=own).json()
    x = hooked.hidden(PROMPT)
    steered = x.clone()
    steered[1:] += 60.0 * hooked.sae.features([3]).dec[0]  # position 0 is left alone
    observed = remembered(api, answer["id"])["activations"]
    before, after = hooked.sae.encode(x), hooked.sae.encode(steered)
    assert_close([entry["values"] for entry in observed], before[:, [3, 11]].tolist())
    assert_close([entry["after"] for entry in observed], after[:, [3, 11]].tolist())
    assert_close([entry["top_after"][0][1] for entry in observed], after.max(dim=1).values.tolist())
    assert not torch.equal(before[1:, 3], after[1:, 3])
    inline = answer["millm"]["activations"]
    assert_close([entry["values"] for entry in inline], after[:, [11]].tolist())
    assert all("after" not in entry for entry in inline)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
def test_chat_history_has_every_token(api, endpoint: str, streamed: bool) -> None:
    api.put("/api/monitor", json={"watch": [MONITORED]}).raise_for_status()
    body = CHAT if "chat" in endpoint else {
        "model": "tiny-llama", "input": "The sea.", "temperature": 0, "max_output_tokens": 5,
    }  # fmt: skip
    answer = api.post(endpoint, json={**body, "stream": streamed}).raise_for_status()
    (row,) = api.get("/api/requests").json()["requests"]
    assert (row["endpoint"], row["streamed"]) == (endpoint, streamed)
    observed = remembered(api, row["id"])["activations"]
    tokens = row["prompt_tokens"] + row["completion_tokens"]
    fed = tokens if row["end"] == "stop" else tokens - 1  # the last is fed only where a stop token followed
    assert [entry["position"] for entry in observed] == list(range(fed))
    assert row["watched"][0]["tokens"] == len(observed)
    if not streamed:
        assert row["id"] == answer.json()["id"]
    written = [entry["token"] for entry in observed if entry["token"] is not None]
    assert "".join(written) in _text(answer, streamed)


def _text(answer: httpx.Response, streamed: bool) -> str:
    """The response body, unescaped."""
    if not streamed:
        return json.dumps(answer.json(), ensure_ascii=False).replace("\\n", "\n")
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk.get("choices")]
    return "".join(deltas) or "".join(
        chunk["delta"] for chunk in chunks if chunk.get("type") == "response.output_text.delta"
    )


def test_follow_profile_watches_profile_features(api) -> None:
    profile = {"name": "watched", "features": [{"index": 3, "strength": 2.0}], "watch": [{"index": 12}, {"index": 40}]}
    api.post("/api/profiles", json=profile).raise_for_status()
    try:
        api.post("/api/profiles/watched/activate").raise_for_status()
        api.put("/api/monitor", json={"watch": [], "follow_profile": True}).raise_for_status()
        followed = remembered(api, complete(api, PROMPT).json()["id"])["request"]
        assert [(one["sae"], sorted(one["features"])) for one in followed["watched"]] == [("tiny", [12, 40])]
        api.post("/api/profiles/deactivate").raise_for_status()
        assert remembered(api, complete(api, PROMPT).json()["id"])["request"]["watched"] == []
    finally:
        api.delete("/api/profiles/watched?force=true").raise_for_status()
