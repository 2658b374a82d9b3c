"""Selection of a steering by profile, header, model name or body: receipts, activations, isolation."""

import asyncio
from typing import Any

import openai
import pytest

PUSH = {"features": [{"index": 3, "strength": 6.0}]}
"""Description of the profile `push`."""


def ask(client: openai.OpenAI, chat: dict[str, Any], *, header: str | None = None, **extension: Any) -> Any:
    headers = {"X-Millm-Profile": header} if header else None
    return client.chat.completions.create(**chat, extra_body=extension, extra_headers=headers)


def text(answer: Any) -> str:
    return answer.choices[0].message.content


def receipt(answer: Any) -> dict[str, Any]:
    return answer.model_extra["millm"]


@pytest.fixture
def base(client, chat) -> Any:
    return ask(client, chat)


@pytest.fixture
def push(client, chat) -> Any:
    return ask(client, chat, profile="push")


def test_all_ways_to_select_a_profile_are_equal(client, chat, base, push) -> None:
    named = {**chat, "model": f"{chat['model']}:push"}
    ways = [ask(client, chat, header="push"), ask(client, named), ask(client, chat, steering=PUSH)]
    assert text(push) != text(base)
    for answer in ways:
        assert text(answer) == text(push)
        assert receipt(answer)["steering"] == receipt(push)["steering"]
        assert receipt(answer)["tokens_steered"] == receipt(push)["tokens_steered"]
    assert [receipt(answer)["profile"] for answer in (push, *ways)] == ["push", "push", "push", None]
    assert ways[1].model == named["model"]


def test_most_explicit_profile_selection_wins(client, chat, base, push) -> None:
    hold = ask(client, chat, profile="hold")
    assert text(hold) not in (text(base), text(push))
    named_hold = {**chat, "model": f"{chat['model']}:hold"}
    assert text(ask(client, named_hold)) == text(hold)
    assert text(ask(client, named_hold, header="push")) == text(push)
    assert text(ask(client, named_hold, header="hold", profile="push")) == text(push)
    assert text(ask(client, named_hold, header="hold", profile="hold", steering=PUSH)) == text(push)


@pytest.mark.parametrize("nothing", [None, {}])
def test_null_steering_selects_base_model(client, chat, base, nothing) -> None:
    answer = ask(client, chat, profile="push", header="hold", steering=nothing)
    assert text(answer) == text(base)
    assert receipt(answer) == {"profile": None, "steering": None, "tokens_steered": 0, "delta_norm_ratio": 0.0}


def test_receipt_counts_steered_positions(push) -> None:
    usage = push.usage
    # Every token that went through the model but the first (`skip: bos`); the last one chosen never does.
    assert receipt(push)["tokens_steered"] == usage.prompt_tokens + usage.completion_tokens - 2
    assert receipt(push)["delta_norm_ratio"] > 0


def test_steering_does_not_affect_later_requests(client, chat, base) -> None:
    for profile in ("push", "hold"):
        ask(client, chat, profile=profile)
        assert text(ask(client, chat)) == text(base)


def test_concurrent_profiles_equal_sequential_ones(server, client, chat) -> None:
    extra: list[dict[str, Any]] = [{}, {"profile": "push"}, {"profile": "hold"}, {"steering": PUSH}] * 2
    alone = [text(ask(client, chat, **fields)) for fields in extra]

    async def at_once() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as crowd:
            requested = [crowd.chat.completions.create(**chat, extra_body=fields) for fields in extra]
            return [text(answer) for answer in await asyncio.gather(*requested)]

    async def streamed() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as crowd:
            return await asyncio.gather(*(_stream(crowd, chat, fields) for fields in extra))

    assert asyncio.run(at_once()) == alone
    assert asyncio.run(streamed()) == alone


async def _stream(crowd: openai.AsyncOpenAI, chat: dict[str, Any], fields: dict[str, Any]) -> str:
    stream = await crowd.chat.completions.create(**chat, extra_body=fields, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@pytest.mark.parametrize("tokens", ["generated", "prompt", "all"])
def test_activations_cover_requested_tokens(client, chat, tokens) -> None:
    answer = ask(client, chat, activations={"features": [3, 5], "top_k": 4, "tokens": tokens, "sample_every": 1})
    prompt, fed = answer.usage.prompt_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens - 1
    positions = {"generated": range(prompt, fed), "prompt": range(prompt), "all": range(fed)}[tokens]
    readings = receipt(answer)["activations"]
    assert [reading["position"] for reading in readings] == list(positions)
    for reading in readings:
        assert (reading["choice"], reading["sae"], len(reading["values"])) == (0, "tiny", 2)
        strengths = [activation for _, activation in reading["top"]]
        assert strengths == sorted(strengths, reverse=True)
        for index, feature in enumerate((3, 5)):
            assert dict(map(tuple, reading["top"])).get(feature, reading["values"][index]) == pytest.approx(
                reading["values"][index], rel=1e-4
            )


def test_watching_does_not_change_the_answer(client, chat, push) -> None:
    watched = ask(client, chat, profile="push", activations={"features": [3], "tokens": "generated"})
    assert text(watched) == text(push)
    result = "".join(reading["token"] for reading in receipt(watched)["activations"])
    if "\ufffd" not in result:
        assert text(watched).startswith(result)


def test_activation_difference_equals_added_delta(client, chat) -> None:
    """The tiny SAE's encoder rows equal its decoder rows of length one, so a delta shows in full."""
    watch = {"features": [3], "tokens": "prompt"}
    answers = [ask(client, chat, profile="push", activations={**watch, "when": when}) for when in ("before", "after")]
    before, after = ([reading["values"][0] for reading in receipt(answer)["activations"]] for answer in answers)
    assert after[0] == before[0]  # bos is skipped
    active = [(early, late) for early, late in zip(before[1:], after[1:], strict=True) if early > 0]
    assert active
    for early, late in active:
        assert late - early == pytest.approx(6.0, rel=1e-3)


def test_activations_absent_without_a_watch(base) -> None:
    assert "activations" not in receipt(base)
