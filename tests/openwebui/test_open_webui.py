"""Open WebUI, the page and what is behind it, on the demo model with its context of 8k."""

import json
import sys
import time
from typing import Any

import httpx
import pytest

from tests.fixtures.process import Server
from tests.openwebui.conftest import LIMIT, OpenWebUI, Seen

pytestmark = [pytest.mark.openwebui, pytest.mark.demo, pytest.mark.timeout(900)]

QUESTION = "Tell me about the sea."


def body(server: Server, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": server.model, "messages": messages, "temperature": 0, "max_tokens": LIMIT, **changes}


def test_it_lists_the_model_and_its_profiles(open_webui: OpenWebUI, demo_server: Server) -> None:
    served = httpx.get(f"{demo_server.base_url}/models").json()["data"]
    listed = open_webui.http.get("/api/models").json()["data"]
    assert {entry["id"]: entry["name"] for entry in listed} == {entry["id"]: entry["name"] for entry in served}
    assert f"{demo_server.model}:yelling" in {entry["id"] for entry in listed}


@pytest.mark.parametrize("profile", ["", ":yelling"])
def test_a_chat_streams(open_webui: OpenWebUI, demo_server: Server, profile: str) -> None:
    """Through its own API: piece by piece, and the pieces are the whole answer."""
    asked = body(demo_server, model=demo_server.model + profile)
    pieces, came = [], []
    with open_webui.http.stream("POST", "/api/chat/completions", json={**asked, "stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                came.append(time.monotonic())
                pieces += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
    whole = httpx.post(f"{demo_server.base_url}/chat/completions", json=asked, timeout=60).json()
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert came[-1] - came[0] > 0.1


def test_its_page_has_the_profiles_in_its_menu(conversation: Seen, demo_server: Server) -> None:
    served = httpx.get(f"{demo_server.base_url}/models").json()["data"]
    assert conversation["menu"] == [entry["name"] for entry in served]


def test_its_page_shows_a_steered_answer_as_it_grows(conversation: Seen) -> None:
    for shown in conversation["answers"]:
        assert len(shown) >= 3
        letters = [letter for letter in shown[-1] if letter.isalpha()]
        assert sum(letter.isupper() for letter in letters) > 0.6 * len(letters), shown[-1]


def test_its_default_tools_do_not_break_a_small_model(conversation: Seen, open_webui: OpenWebUI) -> None:
    chats = open_webui.asked.chats(streamed=True)[-2:]
    for chat in chats:
        assert chat.status == 200
        assert len(chat.body["tools"]) >= 28
        assert len(json.dumps(chat.body["tools"])) > 20_000


def test_what_runs_behind_the_chat_does_not_starve_the_next_message(conversation: Seen, open_webui: OpenWebUI) -> None:
    _, second = open_webui.asked.chats(streamed=True)[-2:]
    behind = open_webui.asked.chats(streamed=False)
    beside = [task for task in behind if task.begun < second.begun and (task.ended or second.came[0]) >= second.came[0]]
    sys.stdout.write(
        f"\nfirst token of the second message after {second.first_byte_seconds:.2f} s, beside {len(beside)} of"
        f" {len(behind)} calls behind the chat\n"
    )
    assert beside
    assert second.first_byte_seconds < 15
