"""Concurrent requests of every kind, with and without profiles, equal single requests."""

import asyncio
from typing import Any

import httpx

from tests.fixtures.close import assert_close
from tests.fixtures.process import Server

QUESTION = [{"role": "user", "content": "Tell me about the sea."}]
GREEDY = {"temperature": 0, "max_tokens": 24}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
WANTED = {"type": "json_schema", "json_schema": {"name": "n", "schema": {**SCHEMA, "additionalProperties": False}}}
MIXED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("chat/completions", {"messages": QUESTION, **GREEDY}),
    ("chat/completions", {"messages": QUESTION, **GREEDY, "profile": "push", "activations": {"features": [3]}}),
    ("chat/completions", {"messages": QUESTION, **GREEDY, "response_format": WANTED, "profile": "hold"}),
    ("completions", {"prompt": "The sea is", **GREEDY, "logprobs": 2}),
    ("completions", {"prompt": ["The sky", "One"], **GREEDY, "profile": "hold", "echo": True, "logprobs": 0}),
    ("embeddings", {"input": ["The sea is wide.", "One"]}),
    ("embeddings", {"input": "The sky", "profile": "push", "activations": {"features": [3, 7]}}),
    ("responses", {"input": "Tell me about the sky.", "temperature": 0, "max_output_tokens": 24, "profile": "push"}),
)
VARYING = ("id", "created", "created_at", "completed_at")


def without_ids(value: Any) -> Any:
    """Without the fields that differ between answers to the same request."""
    if isinstance(value, dict):
        return {
            key: without_ids(value)
            for key, value in value.items()
            if key not in VARYING and key not in ("cached_tokens", "prompt_tokens_details", "input_tokens_details")
        }
    return [without_ids(value) for value in value] if isinstance(value, list) else value


async def ask(client: httpx.AsyncClient, path: str, body: dict[str, Any], server: Server) -> Any:
    answer = await client.post(f"{server.base_url}/{path}", json={"model": server.model, **body})
    assert answer.status_code == 200, answer.text
    return without_ids(answer.json())


def test_concurrent_mixed_requests_equal_single_requests(server: Server) -> None:
    async def run_both() -> tuple[list[Any], list[Any]]:
        async with httpx.AsyncClient(timeout=60) as client:
            alone = [await ask(client, path, body, server) for path, body in MIXED]
            together: list[Any] = []
            for _ in range(3):
                together += await asyncio.gather(*(ask(client, path, body, server) for path, body in MIXED))
        return alone, together

    alone, together = asyncio.run(run_both())
    for result, expected in zip(together, alone * 3, strict=True):
        assert_close(result, expected)
    for result, expected in zip(together, alone * 3, strict=True):
        if result["object"] == "list":
            assert result == expected, "a vector is the same to the last bit"
    receipts = [
        answer["millm"]["steering"] for answer in together[:8] if "millm" in answer and answer["object"] != "list"
    ]
    assert receipts.count(None) == 2
    assert len(set(receipts)) == 3
