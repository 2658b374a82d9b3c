"""Embeddings of a generating model by the official client, and rejected requests."""

import base64
import random
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from tests.fixtures.close import assert_close
from tests.fixtures.inside import serving
from tests.fixtures.process import Server
from tests.fixtures.tiny import CONTEXT, FEATURES, WIDTH

TEXTS = [
    "The sea is wide.",
    "the ships are small",
    "def add(a, b):\n    return a + b",
    "é 海 🙂",
    " ",
    "one two three " * 20,
]
URL = "/embeddings"


@pytest.fixture(scope="session")
def ids(tiny_model) -> list[list[int]]:
    """Token ids of the texts, without special tokens."""
    backend = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    return [encoding.ids for encoding in backend.encode_batch(TEXTS)]


def ask(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post(URL, json={"model": "tiny-llama", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post(URL, json={"model": "tiny-llama", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


def vectors(answer: dict[str, Any]) -> np.ndarray:
    return np.array([entry["embedding"] for entry in answer["data"]], dtype=np.float32)


# ----------------------------------------------------------------------------------------------------------- answers


def test_embeddings_equal_transformers_mean_pooling(
    client: openai.OpenAI, server: Server, ids: list[list[int]], tiny_model
) -> None:
    """The client requests base64 by default and decodes float32."""
    reference = LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    answer = client.embeddings.create(model=server.model, input=TEXTS)
    assert [entry.index for entry in answer.data] == list(range(len(TEXTS)))
    assert answer.model == server.model
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids))
    for tokens, entry in zip(ids, answer.data, strict=True):
        with torch.inference_mode():
            mean = reference.model(torch.tensor([tokens]), use_cache=False).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(entry.embedding, (mean / mean.norm()).numpy(), atol=2e-6)


def test_all_input_forms_give_the_same_vector(http: httpx.Client, ids: list[list[int]]) -> None:
    one = vectors(ask(http, input=TEXTS[0]))
    assert one.shape == (1, WIDTH)
    for form in ([TEXTS[0]], ids[0], [ids[0]]):
        assert (vectors(ask(http, input=form)) == one).all()


def test_vectors_do_not_depend_on_input_order(http: httpx.Client) -> None:
    alone = {text: vectors(ask(http, input=text))[0] for text in TEXTS}
    chance = random.Random(0)
    for _ in range(5):
        order = chance.choices(TEXTS, k=chance.randint(1, 30))
        found = vectors(ask(http, input=order))
        assert all((vector == alone[text]).all() for text, vector in zip(order, found, strict=True))


def test_float_encoding_equals_base64_with_fewest_digits(http: httpx.Client) -> None:
    numbers = ask(http, input=TEXTS[0], encoding_format="float")
    encoded = ask(http, input=TEXTS[0], encoding_format="base64")["data"][0]["embedding"]
    assert (np.frombuffer(base64.b64decode(encoded), dtype="<f4") == vectors(numbers)[0]).all()
    written = http.post(URL, json={"model": "tiny-llama", "input": TEXTS[0]}).text
    inside = written[written.index('"embedding":[') + 13 : written.index("]")].split(",")
    assert len(inside) == WIDTH
    assert all(len(number.lstrip("-").replace("0.", "", 1).lstrip("0")) <= 9 for number in inside)


def test_dimensions_truncates_and_normalizes(http: httpx.Client) -> None:
    full = vectors(ask(http, input=TEXTS))
    for width in (1, 7, WIDTH):
        cut = vectors(ask(http, input=TEXTS, dimensions=width))
        expected = full[:, :width] / np.linalg.norm(full[:, :width], axis=1, keepdims=True)
        np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_steering_does_not_change_embeddings(http: httpx.Client, server: Server) -> None:
    """Neither the active steering nor a profile in model name, body or header applies, as the receipt shows."""
    bare = ask(http, input=TEXTS)
    assert bare["millm"] == {"profile": None, "steering": None, "tokens_steered": 0}
    assert httpx.put(f"{server.url}/api/steering", json={"profile": "push"}).status_code == 200
    try:
        active = ask(http, input=TEXTS)
    finally:
        httpx.put(f"{server.url}/api/steering", content=b"null")
    aliased = ask(http, input=TEXTS, model="tiny-llama:push")
    named = ask(http, input=TEXTS, profile="hold")
    headed = http.post(
        URL, json={"model": "tiny-llama", "input": TEXTS}, headers={"X-Millm-Profile": "push"}
    ).json()  # fmt: skip
    for other in (active, aliased, named, headed):
        assert {**other, "model": ""} == {**bare, "model": ""}
    unknown = http.post(URL, json={"model": "tiny-llama:nobody", "input": "a"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "profile_not_found")


def test_fields_of_other_clients_are_accepted(http: httpx.Client) -> None:
    bare = ask(http, input=TEXTS[0])
    extra = {"user": "somebody", "keep_alive": "5m", "dimensions": None, "encoding_format": None, "steering": None}
    assert ask(http, input=TEXTS[0], **extra) == bare


def test_2048_inputs_are_accepted(http: httpx.Client) -> None:
    """More inputs than the queue holds: the request waits on its own."""
    answer = ask(http, input=[[5]] * 2048)
    found = vectors(answer)
    assert found.shape == (2048, WIDTH)
    assert (found == found[0]).all()
    assert "2048" in refusal(http, input=[[5]] * 2049)["message"]


# -------------------------------------------------------------------------------------------------------- activations


def test_activations_cover_every_token_of_every_input(
    http: httpx.Client, chat: dict[str, Any], ids: list[list[int]]
) -> None:
    """The values equal those of a completion's prompt; the vectors do not change."""
    watch = {"features": [3, 11], "top_k": 2, "sample_every": 1}
    answer = ask(http, input=TEXTS[:3], activations=watch)
    assert vectors(answer).tolist() == vectors(ask(http, input=TEXTS[:3])).tolist()
    found = answer["millm"]["activations"]
    assert answer["millm"]["sample_every"] == 1
    assert [(entry["input"], entry["position"]) for entry in found] == [
        (place, position) for place in range(3) for position in range(len(ids[place]))
    ]
    for place in range(3):
        body = {"model": "tiny-llama", "prompt": ids[place], "max_tokens": 1, "steering": None}
        body["activations"] = {**watch, "tokens": "prompt"}
        shown = http.post("/completions", json=body).json()["millm"]["activations"]
        mine = [{**entry, "choice": 0} for entry in found if entry["input"] == place]
        assert_close([{k: v for k, v in entry.items() if k != "input"} for entry in mine], shown)


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("given", ["", [], [""], ["a", ""], [[]], [1, "a"], ["a", [1]], [[1], "a"], {"a": 1}, 7, [1.5],
                                   [-1], [True], [["a"]], None])  # fmt: skip
def test_invalid_inputs_are_rejected(http: httpx.Client, given: Any) -> None:
    error = refusal(http, input=given)
    assert error["param"] == "input"
    assert "`input`" in error["message"]


@pytest.mark.parametrize(
    ("body", "param", "message_part"),
    [
        ({"input": [[5], [400_000]]}, "input.1", "token ids from 0 to"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ({"input": "a", "dimensions": WIDTH + 1}, "dimensions", f"from 1 to {WIDTH}"),
        ({"input": "a", "dimensions": "8"}, "dimensions", "integer"),
        ({"input": "a", "activations": {"features": [FEATURES]}}, "activations.features", "not in 0.."),
        ({"input": "a", "activations": {}}, "activations", "top_k"),
        ({"input": "a", "steering": {"features": [{"index": 3, "strength": 1}]}}, "steering", "not applied"),
        ({}, "input", "required"),
    ],
)
def test_unsupported_requests_are_rejected(
    http: httpx.Client, body: dict[str, Any], param: str, message_part: str
) -> None:
    error = refusal(http, **body)
    assert error["param"] == param
    assert message_part in error["message"]


@pytest.mark.parametrize(
    "inputs",
    [[[5], [5] * (CONTEXT + 1)], ["a", "one two " * CONTEXT], ["a", "x" * 3_000_000]],
    ids=["ids", "text", "characters"],
)
def test_oversized_input_is_rejected_not_truncated(http: httpx.Client, inputs: list[Any]) -> None:
    error = refusal(http, input=inputs)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input.1")
    assert error["message"].startswith(f"This model's maximum context length is {CONTEXT} tokens")


def test_input_of_context_length_is_accepted(http: httpx.Client) -> None:
    assert ask(http, input=[5] * CONTEXT)["usage"]["total_tokens"] == CONTEXT


def test_unknown_model_is_rejected(http: httpx.Client) -> None:
    answer = http.post(URL, json={"model": "text-embedding-3-small", "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_disconnect_cancels_the_embedding(http: httpx.Client, server: Server) -> None:
    body = {"model": "tiny-llama", "input": [[5] * CONTEXT] * 2048}
    with pytest.raises(httpx.ReadTimeout):
        http.post(URL, json=body, timeout=0.5)
    deadline = time.monotonic() + 5
    while (status := httpx.get(f"{server.url}/api/status").json())["in_flight"]:
        assert time.monotonic() < deadline, status


def test_request_timeout_covers_all_inputs(tmp_path: Path, tiny_model: Path, tiny_sae: Path) -> None:
    """The timeout covers all inputs, which reach the engine a few at a time."""
    with serving(tiny_model, tiny_sae, tmp_path, request_timeout=0.5) as inside:
        body = {"model": "tiny-llama", "input": [[5] * CONTEXT] * 2048}
        answer = httpx.post(f"{inside.base_url}/embeddings", json=body, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert "0.5 s" in answer.json()["error"]["message"]
        short = httpx.post(f"{inside.base_url}/embeddings", json={**body, "input": "a"}, timeout=30)
        assert short.status_code == 200
