"""Open WebUI, its page and API, on the demo model with a context of 8k."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from millm.monitoring.clients import TASK_HEADER
from tests.fixtures.process import Server
from tests.openwebui.conftest import LIMIT, OpenWebUI, Seen

pytestmark = [pytest.mark.openwebui, pytest.mark.demo, pytest.mark.timeout(900)]

QUESTION = "Tell me about the sea."


def body(server: Server, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": server.model, "messages": messages, "temperature": 0, "max_tokens": LIMIT, **changes}


def test_models_and_profiles_are_listed(open_webui: OpenWebUI, demo_server: Server) -> None:
    served = httpx.get(f"{demo_server.base_url}/models").json()["data"]
    listed = open_webui.http.get("/api/models").json()["data"]
    assert {entry["id"]: entry["name"] for entry in listed} == {entry["id"]: entry["name"] for entry in served}
    assert f"{demo_server.model}:yelling" in {entry["id"] for entry in listed}


@pytest.mark.parametrize("profile", ["", ":yelling"])
def test_a_chat_streams(open_webui: OpenWebUI, demo_server: Server, profile: str) -> None:
    """Through its own API, as a stream that equals the complete answer."""
    request_body = body(demo_server, model=demo_server.model + profile)
    pieces, came = [], []
    with open_webui.http.stream("POST", "/api/chat/completions", json={**request_body, "stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                came.append(time.monotonic())
                pieces += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
    complete = httpx.post(f"{demo_server.base_url}/chat/completions", json=request_body, timeout=60).json()
    assert "".join(pieces) == complete["choices"][0]["message"]["content"]
    assert came[-1] - came[0] > 0.1


def test_the_page_lists_the_profiles(conversation: Seen, demo_server: Server) -> None:
    served = httpx.get(f"{demo_server.base_url}/models").json()["data"]
    assert conversation["menu"] == [entry["name"] for entry in served]


def test_the_page_streams_a_steered_answer(conversation: Seen) -> None:
    for shown in conversation["answers"]:
        assert len(shown) >= 3
        letters = [letter for letter in shown[-1] if letter.isalpha()]
        assert sum(letter.isupper() for letter in letters) > 0.6 * len(letters), shown[-1]


def test_default_tools_do_not_break_a_small_model(conversation: Seen, open_webui: OpenWebUI, demo_folder: Path) -> None:
    """The demo's template does not support tools, so they are dropped, and the answer reports it."""
    tokenizer = Tokenizer.from_file(str(demo_folder / "tokenizer.json"))
    for chat in open_webui.asked.chats(streamed=True)[-2:]:
        tools = chat.body["tools"]
        tokens = len(tokenizer.encode(json.dumps(tools)).ids)
        sys.stdout.write(f"\n{len(tools)} tools, {tokens} tokens as JSON\n")
        assert len(tools) >= 28
        assert tokens > 5000
        assert chat.status == 200
        assert chat.events[-1]["millm"]["tools_omitted"] is True


def test_background_requests_do_not_starve_the_next_message(conversation: Seen, open_webui: OpenWebUI) -> None:
    _, second = open_webui.asked.chats(streamed=True)[-2:]
    background = open_webui.asked.chats(streamed=False)
    concurrent = [
        task for task in background if task.begun < second.begun and (task.ended or second.came[0]) >= second.came[0]
    ]
    sys.stdout.write(
        f"\nfirst token of the second message after {second.first_byte_seconds:.2f} s, with {len(concurrent)} of"
        f" {len(background)} background requests concurrent\n"
    )
    assert concurrent
    assert second.first_byte_seconds < 15


def test_background_requests_carry_a_header(conversation: Seen, open_webui: OpenWebUI) -> None:
    """As configured in compose.yaml, for the monitor."""
    background = {task.headers[TASK_HEADER] for task in open_webui.asked.chats(streamed=False)}
    assert "follow_up_generation" in background
    assert background <= {"title_generation", "tags_generation", "follow_up_generation"}
    assert not background & {chat.headers.get(TASK_HEADER) for chat in open_webui.asked.chats(streamed=True)}


def test_a_file_is_found_with_embeddings_of_the_server(open_webui: OpenWebUI, demo_server: Server) -> None:
    """The score of a text equals the similarity of the server's embeddings."""
    text, query = "Bread is made of flour, water, salt and time.", "What is bread made of?"
    file = {"file": ("bread.txt", text, "text/plain")}
    upload = open_webui.http.post("/api/v1/files/", files=file, params={"process_in_background": "false"})
    request_body = {"collection_name": f"file-{upload.raise_for_status().json()['id']}", "query": query, "k": 1}
    results = open_webui.http.post("/api/v1/retrieval/query/doc", json=request_body).raise_for_status().json()
    assert results["documents"] == [[text]]
    assert results["distances"][0][0] == pytest.approx((1 + cosine(demo_server, text, query)) / 2, abs=1e-3)
    embedding_requests = [exchange for exchange in open_webui.asked.exchanges if exchange.path.endswith("/embeddings")]
    assert [exchange.body["input"] for exchange in embedding_requests[-2:]] == [[text], [query]]


def cosine(server: Server, *texts: str) -> float:
    answer = httpx.post(f"{server.base_url}/embeddings", json={"model": server.model, "input": texts}, timeout=60)
    one, other = (entry["embedding"] for entry in answer.json()["data"])
    return float(sum(a * b for a, b in zip(one, other, strict=True)))
