"""Progress, queue, cancellation, crash and restore with a real engine process."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from millm.engine.client import EngineClient
from millm.engine.messages import AttachSae, Finished, LoadModel, Progress, Token
from millm.errors import EngineCrashed, InvalidModel, InvalidSae, ModelNotLoaded, QueueFull, SaeMismatch
from millm.sae.steering import SaeSteering, Steering
from tests.engine.conftest import Engine, collect, start
from tests.engine.engine_harness import CALIBRATION
from tests.engine.test_core_generation import PUSH, request
from tests.fixtures.tiny import WIDTH, write_sae


async def until_ready(client: EngineClient) -> None:
    while client.status != "ready":
        await asyncio.sleep(0.05)


def attach_command(path: Path, root: Path, *, sae: str = "another", hook_point: str | None = None) -> AttachSae:
    return AttachSae(
        id=f"attach-{sae}", sae=sae, path=str(path), canonical_root=str(root), hook_point=hook_point,
        calibration_ids=CALIBRATION, model_name="tiny-llama",
    )  # fmt: skip


def test_closing_the_iterator_cancels_at_the_next_step(engine: Engine) -> None:
    """The next request need not wait for the 200 steps of a closed one."""

    async def leave_after_one_token() -> int:
        events = engine.client.generate(request("long", max_tokens=200))
        async for _ in events:
            break
        await events.aclose()
        following = await collect(engine.client.generate(request("next", max_tokens=1)))
        return len(following)

    assert engine.loop.run(leave_after_one_token()) == 2
    assert engine.client.in_flight == 0


def test_leaving_before_the_first_token_frees_the_queue(engine: Engine) -> None:
    """A queued request whose caller leaves never runs."""

    async def give_up() -> list[Token | Finished]:
        running = asyncio.create_task(collect(engine.client.generate(request("running", max_tokens=60))))
        waiting = asyncio.create_task(collect(engine.client.generate(request("waiting", max_tokens=200))))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return await running

    assert len(engine.loop.run(give_up())) == 61
    assert engine.client.in_flight == 0


def test_many_concurrent_requests_finish(engine: Engine) -> None:
    """Their order is tested with the scheduler."""
    order: list[str] = []

    async def one(name: str) -> None:
        await collect(engine.client.generate(request(name, max_tokens=4)))
        order.append(name)

    async def all_at_once() -> None:
        await asyncio.gather(*(one(f"r{index}") for index in range(12)))

    engine.loop.run(all_at_once())
    assert sorted(order) == sorted(f"r{index}" for index in range(12))


def test_full_queue_rejects_requests(engine: Engine) -> None:
    room = engine.client.capacity

    async def too_many() -> list[object]:
        jobs = [collect(engine.client.generate(request(f"q{index}", max_tokens=2))) for index in range(room + 6)]
        return await asyncio.gather(*jobs, return_exceptions=True)

    answers = engine.loop.run(too_many())
    refused = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert len(refused) == 6
    assert sum(isinstance(answer, list) for answer in answers) == room
    assert all(1 <= refusal.retry_after_seconds <= 60 for refusal in refused)


def test_job_starts_all_its_sequences_or_none(engine: Engine) -> None:
    """Two requests run; a job that needs one place too many starts no sequence."""
    room = engine.client.capacity

    async def scenario() -> tuple[int, list[Token | Finished]]:
        long = [request(f"long{index}", max_tokens=200) for index in range(2)]
        running = engine.client.generate(*long)
        await anext(running)
        with pytest.raises(QueueFull):
            await collect(engine.client.generate(*(request(f"job{index}") for index in range(room - 1))))
        in_flight = engine.client.in_flight
        fits = await asyncio.gather(
            running.aclose(), collect(engine.client.generate(*(request(f"job{index}") for index in range(room - 2))))
        )
        return in_flight, fits[1]

    in_flight, events = engine.loop.run(scenario())
    assert in_flight == 2
    assert sum(isinstance(event, Finished) for event in events) == room - 2


def test_sequences_of_a_job_match_single_runs(engine: Engine) -> None:
    requests = [request("a", max_tokens=9), request("b", PUSH, max_tokens=5), request("c", max_tokens=7)]
    alone = [engine.tokens(one) for one in requests]
    together = engine.loop.run(collect(engine.client.generate(*requests)))
    for one, tokens in zip(requests, alone, strict=True):
        assert [event.token for event in together if isinstance(event, Token) and event.id == one.id] == tokens


def test_follower_starts_with_the_active_steering(engine: Engine) -> None:
    """Also if it changed after the request was parsed; other requests have their own."""
    base, pushed = engine.tokens(request("base")), engine.tokens(request("pushed", PUSH))
    assert base != pushed

    async def scenario() -> None:
        engine.client.set_active_steering(PUSH)

    engine.loop.run(scenario())
    assert engine.tokens(replace(request("follower"), follows_active=True)) == pushed
    assert engine.tokens(request("own")) == base
    engine.client.set_active_steering(None)
    assert engine.tokens(replace(request("follower", PUSH), follows_active=True)) == base


def test_leaving_a_job_cancels_all_its_sequences(engine: Engine) -> None:
    """Running and queued ones; the engine has confirmed it when none is in flight."""

    async def leave() -> int:
        jobs = [
            engine.client.generate(*(request(f"{job}-{index}", max_tokens=200) for index in range(3)))
            for job in range(engine.client.capacity // 6)
        ]
        coming = [asyncio.ensure_future(anext(job)) for job in jobs]
        await coming[0]
        in_flight = engine.client.in_flight
        for one in coming:
            one.cancel()
        await asyncio.gather(*coming, *(job.aclose() for job in jobs), return_exceptions=True)
        async with asyncio.timeout(2):
            while engine.client.in_flight:
                await asyncio.sleep(0.01)
        return in_flight

    assert engine.loop.run(leave()) == 3 * (engine.client.capacity // 6)


def test_loading_reports_progress(engine: Engine, loop_free_client: EngineClient, tiny_model: Path) -> None:
    seen: list[Progress] = []
    engine.loop.run(loop_free_client.load(LoadModel(id="again", path=str(tiny_model)), seen.append))
    assert {event.stage for event in seen} == {"loading weights", "checking weights"}
    assert all(0 <= event.done <= event.total for event in seen)


@pytest.fixture
def loop_free_client(engine: Engine):
    """A second engine without a model."""
    client = EngineClient(max_queue=4)
    engine.loop.run(client.start())
    yield client
    engine.loop.run(client.close())


def test_requests_without_a_model_are_rejected(
    engine: Engine, loop_free_client: EngineClient, tiny_sae: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotLoaded):
        engine.loop.run(collect(loop_free_client.generate(request("early"))))
    with pytest.raises(ModelNotLoaded):
        engine.loop.run(loop_free_client.attach(attach_command(tiny_sae, tmp_path)))


def test_failed_command_preserves_the_previous_state(engine: Engine, tmp_path: Path) -> None:
    before = engine.tokens(request("push", PUSH))
    wide = write_sae(tmp_path / "wide", width=WIDTH + 1, layer=2)
    late = write_sae(tmp_path / "late", layer=9)
    same_place = write_sae(tmp_path / "same", seed=5)
    refusals = [
        (attach_command(wide, tmp_path), SaeMismatch, f"width {WIDTH + 1}.*has {WIDTH}"),
        (attach_command(late, tmp_path), SaeMismatch, "layer"),
        (attach_command(same_place, tmp_path), SaeMismatch, "already has SAE 'tiny'"),
        (attach_command(tmp_path / "absent", tmp_path), InvalidSae, "folder"),
    ]
    for command, error, message in refusals:
        with pytest.raises(error, match=message):
            engine.loop.run(engine.client.attach(command))
    with pytest.raises(InvalidModel):
        engine.loop.run(engine.client.load(LoadModel(id="bad", path=str(tmp_path))))
    assert engine.tokens(request("push", PUSH)) == before


def test_saes_on_two_layers_add_up(
    engine: Engine, tiny_model: Path, tiny_sae: Path, canonical_root: Path, tmp_path: Path
) -> None:
    """Attaching changes no output, and active steering does not affect the calibration."""
    second, third = write_sae(tmp_path / "second", seed=9, layer=2), write_sae(tmp_path / "third", seed=9, layer=3)

    async def scenario() -> None:
        client = await start(tiny_model, tiny_sae, canonical_root)
        third_facts = await client.attach(attach_command(third, tmp_path, sae="third"))
        alone = await collect(client.generate(request("push", PUSH)))
        facts = await client.attach(attach_command(second, tmp_path, sae="second"))
        assert await collect(client.generate(request("push", PUSH))) == alone
        both = steer_both(PUSH, "second")
        assert await collect(client.generate(request("push", both))) != alone
        await client.close()
        fresh = await start(tiny_model, tiny_sae, canonical_root)
        for path, expected in ((second, facts), (third, third_facts)):
            again = await fresh.attach(attach_command(path, tmp_path, sae=expected.sae))
            assert min(again.sample_every, expected.sample_every) >= 1  # the one thing that is a matter of time
            assert replace(again, sample_every=1) == replace(expected, sample_every=1)
        await fresh.close()

    engine.loop.run(scenario())


def steer_both(steering: Steering, other: str) -> Steering:
    """The same features in the second SAE."""
    (item,) = steering.by_sae
    return replace(steering, by_sae=(item, SaeSteering(other, item.features)))


def test_crashed_engine_fails_requests_and_is_restored(
    engine: Engine, tiny_model: Path, tiny_sae: Path, canonical_root: Path
) -> None:
    """kill -9 during a request: an error within 2 s, then the same model, SAE and steered output."""

    async def scenario() -> float:
        client = await start(tiny_model, tiny_sae, canonical_root)
        before = await collect(client.generate(request("push", PUSH)))
        dying = asyncio.create_task(collect(client.generate(request("dying", max_tokens=230))))
        await asyncio.sleep(0.1)
        assert client.pid
        os.kill(client.pid, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(EngineCrashed):
            await dying
        took = time.monotonic() - killed
        with pytest.raises(ModelNotLoaded, match="restarted"):
            await collect(client.generate(request("too early")))
        await until_ready(client)
        assert await collect(client.generate(request("push", PUSH))) == before
        await client.close()
        return took

    assert engine.loop.run(scenario()) < 2


def test_engine_that_keeps_crashing_stays_down(engine: Engine) -> None:
    async def scenario() -> str:
        client = EngineClient(max_queue=4)
        await client.start()
        for _ in range(10):
            if client.status == "down":
                break
            assert client.pid
            os.kill(client.pid, signal.SIGKILL)
            await asyncio.sleep(0.2)
        status = client.status
        await client.close()
        return status

    assert engine.loop.run(scenario()) == "down"
