"""Idle unload, wake-up, and on-demand loads."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from millm.lifecycle.changes import unload_when_idle
from millm.lifecycle.models import load
from millm.lifecycle.saes import attach, detach
from millm.lifecycle.selection import resolve_active
from millm.lifecycle.steering import activate
from millm.profiles.schema import SteeringRequest
from millm.status import ModelSpec, SaeSpec, read_desired
from tests.fixtures.inside import Inside
from tests.lifecycle.asking import KNOB, body, code, post, text


def allow(inside: Inside, **settings: object) -> None:
    inside.state.settings = inside.state.settings.model_copy(update=settings)


@pytest.fixture(autouse=True)
def as_before(inside: Inside) -> Iterator[None]:
    yield
    allow(inside, keep_alive=-1, on_demand="off")
    inside.run(_as_before(inside))


async def _as_before(inside: Inside) -> None:
    state = inside.state
    if state.asleep or state.model is None or state.model.name != "tiny-llama":
        await load(state, ModelSpec(id="tiny-llama"))
    if "tiny" not in state.saes:
        await attach(state, SaeSpec(id="tiny"))
    await activate(state, None)


def put_to_sleep(inside: Inside) -> None:
    allow(inside, keep_alive=0.2)

    async def until_asleep() -> None:
        idling = asyncio.create_task(unload_when_idle(inside.state))
        async with asyncio.timeout(20):
            while inside.state.status != "asleep":
                await asyncio.sleep(0.02)
        idling.cancel()

    inside.run(until_asleep())


def test_concurrent_requests_wake_the_model_once(inside: Inside) -> None:
    asked = SteeringRequest.model_validate(KNOB)
    inside.run(activate(inside.state, resolve_active(inside.state, steering=asked)))
    steered, remembered = text(inside), read_desired(inside.state.hub.database)
    put_to_sleep(inside)
    assert read_desired(inside.state.hub.database) == remembered
    assert inside.state.engine.snapshot.model is None
    told = httpx.get(f"{inside.url}/v1/models").json()["data"]
    assert "tiny-llama" in [entry["id"] for entry in told]
    assert httpx.get(f"{inside.url}/readyz").status_code == 503

    async def at_once() -> list[str]:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            asking = [client.post(f"{inside.base_url}/completions", json=body("tiny-llama")) for _ in range(5)]
            return [answer.json()["choices"][0]["text"] for answer in await asyncio.gather(*asking)]

    assert asyncio.run(at_once()) == [steered] * 5
    assert inside.state.status == "ready"


def test_loading_the_sleeping_model_wakes_it(inside: Inside) -> None:
    """Loading the loaded model changes neither its SAEs nor the active steering."""
    inside.run(activate(inside.state, resolve_active(inside.state, steering=SteeringRequest.model_validate(KNOB))))
    steered = text(inside)
    put_to_sleep(inside)
    inside.run(load(inside.state, ModelSpec(id="tiny-llama")))
    assert inside.state.status == "ready"
    assert list(inside.state.saes) == ["tiny"]
    assert text(inside) == steered


def test_running_request_prevents_idle_unload(inside: Inside) -> None:
    allow(inside, keep_alive=0.9)

    async def watched() -> "asyncio.Task[None]":
        return asyncio.create_task(unload_when_idle(inside.state))

    idling = inside.run(watched())
    for _ in range(6):
        text(inside, max_tokens=1)
        time.sleep(0.3)
    assert inside.state.status == "ready"
    told = httpx.get(f"{inside.url}/api/status").json()["model"]["unloads_in"]
    assert 0 < told <= 0.9
    inside.loop.call_soon_threadsafe(idling.cancel)


def test_sae_changes_wake_the_model(inside: Inside) -> None:
    base = text(inside)
    put_to_sleep(inside)
    inside.run(detach(inside.state, "tiny"))
    assert inside.state.saes == {}
    assert text(inside) == base


def test_on_demand_load_needs_the_setting(inside: Inside) -> None:
    assert code(post(inside, model="gpt2")) == (404, "model_not_found")
    allow(inside, on_demand="auto")
    assert code(post(inside, model="nobody")) == (404, "model_not_found")
    assert text(inside, model="gpt2")
    told = httpx.get(f"{inside.url}/v1/models").json()["data"]
    assert {"gpt2", "tiny-llama", "other-llama"} <= {entry["id"] for entry in told}
    assert text(inside, model="tiny-llama")


def test_concurrent_requests_share_one_on_demand_load(inside: Inside) -> None:
    allow(inside, on_demand="auto")
    loads = inside.call(inside.state.engine.new_id, "count")

    async def at_once() -> list[int]:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            asking = [client.post(f"{inside.base_url}/completions", json=body("other-llama")) for _ in range(6)]
            return [answer.status_code for answer in await asyncio.gather(*asking)]

    assert asyncio.run(at_once()) == [200] * 6
    after = inside.call(inside.state.engine.new_id, "count")
    assert int(after.split("-")[1]) - int(loads.split("-")[1]) == 2, "one load, and this"
