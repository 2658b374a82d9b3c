"""Picking a steering by profile, header, model name or body, proving it, watching it, and leaving no trace."""

import asyncio
from typing import Any

import openai
import pytest

PUSH = {"features": [{"index": 3, "strength": 6.0}]}
"""What the profile `push` says."""


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


def test_every_way_to_pick_a_profile_is_the_same_steering(client, chat, base, push) -> None:
    named = {**chat, "model": f"{chat['model']}:push"}
    ways = [ask(client, chat, header="push"), ask(client, named), ask(client, chat, steering=PUSH)]
    assert text(push) != text(base)
    for answer in ways:
        assert text(answer) == text(push)
        assert receipt(answer)["steering"] == receipt(push)["steering"]
        assert receipt(answer)["tokens_steered"] == receipt(push)["tokens_steered"]
    assert [receipt(answer)["profile"] for answer in (push, *ways)] == ["push", "push", "push", None]
    assert ways[1].model == named["model"]


def test_the_most_explicit_way_wins(client, chat, base, push) -> None:
    hold = ask(client, chat, profile="hold")
    assert text(hold) not in (text(base), text(push))
    named_hold = {**chat, "model": f"{chat['model']}:hold"}
    assert text(ask(client, named_hold)) == text(hold)
    assert text(ask(client, named_hold, header="push")) == text(push)
    assert text(ask(client, named_hold, header="hold", profile="push")) == text(push)
    assert text(ask(client, named_hold, header="hold", profile="hold", steering=PUSH)) == text(push)


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_steering_is_the_base_model_whatever_else_is_picked(client, chat, base, nothing) -> None:
    answer = ask(client, chat, profile="push", header="hold", steering=nothing)
    assert text(answer) == text(base)
    assert receipt(answer) == {"profile": None, "steering": None, "tokens_steered": 0, "delta_norm_ratio": 0.0}


def test_a_receipt_counts_the_positions_that_were_steered(push) -> None:
    usage = push.usage
    # Every token that went through the model but the first (`skip: bos`); the last one chosen never does.
    assert receipt(push)["tokens_steered"] == usage.prompt_tokens + usage.completion_tokens - 2
    assert receipt(push)["delta_norm_ratio"] > 0


def test_a_steered_answer_leaves_no_trace_in_the_next(client, chat, base) -> None:
    for profile in ("push", "hold"):
        ask(client, chat, profile=profile)
        assert text(ask(client, chat)) == text(base)


def test_different_profiles_at_once_answer_as_they_do_alone(server, client, chat) -> None:
    wishes: list[dict[str, Any]] = [{}, {"profile": "push"}, {"profile": "hold"}, {"steering": PUSH}] * 2
    alone = [text(ask(client, chat, **wish)) for wish in wishes]

    async def at_once() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as crowd:
            asked = [crowd.chat.completions.create(**chat, extra_body=wish) for wish in wishes]
            return [text(answer) for answer in await asyncio.gather(*asked)]

    async def streamed() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as crowd:
            return await asyncio.gather(*(_stream(crowd, chat, wish) for wish in wishes))

    assert asyncio.run(at_once()) == alone
    assert asyncio.run(streamed()) == alone


async def _stream(crowd: openai.AsyncOpenAI, chat: dict[str, Any], wish: dict[str, Any]) -> str:
    stream = await crowd.chat.completions.create(**chat, extra_body=wish, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@pytest.mark.parametrize("tokens", ["generated", "prompt", "all"])
def test_activations_are_reported_at_the_tokens_asked_for(client, chat, tokens) -> None:
    answer = ask(client, chat, activations={"features": [3, 5], "top_k": 4, "tokens": tokens, "sample_every": 1})
    prompt, fed = answer.usage.prompt_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens - 1
    positions = {"generated": range(prompt, fed), "prompt": range(prompt), "all": range(fed)}[tokens]
    readings = receipt(answer)["activations"]
    assert [reading["position"] for reading in readings] == list(positions)
    for reading in readings:
        assert (reading["choice"], reading["sae"], len(reading["values"])) == (0, "tiny", 2)
        strengths = [activation for _, activation in reading["top"]]
        assert strengths == sorted(strengths, reverse=True)
        for place, feature in enumerate((3, 5)):
            assert dict(map(tuple, reading["top"])).get(feature, reading["values"][place]) == pytest.approx(
                reading["values"][place], rel=1e-4
            )


def test_watching_does_not_change_the_answer_and_its_tokens_are_the_text(client, chat, push) -> None:
    watched = ask(client, chat, profile="push", activations={"features": [3], "tokens": "generated"})
    assert text(watched) == text(push)
    told = "".join(reading["token"] for reading in receipt(watched)["activations"])
    if "\ufffd" not in told:
        assert text(watched).startswith(told)


def test_what_was_added_is_what_is_seen(client, chat) -> None:
    """The tiny SAE's encoder rows are its decoder rows, of length one: what is pushed shows in full."""
    watch = {"features": [3], "tokens": "prompt"}
    answers = [ask(client, chat, profile="push", activations={**watch, "when": when}) for when in ("before", "after")]
    before, after = ([reading["values"][0] for reading in receipt(answer)["activations"]] for answer in answers)
    assert after[0] == before[0]  # bos is skipped
    active = [(early, late) for early, late in zip(before[1:], after[1:], strict=True) if early > 0]
    assert active
    for early, late in active:
        assert late - early == pytest.approx(6.0, rel=1e-3)


def test_unwatched_answers_have_no_activations(base) -> None:
    assert "activations" not in receipt(base)
