"""Loading, replacing and unloading models: answers, status, and rollback after failures."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from millm.engine.messages import InjectFault
from millm.errors import (
    EngineFailed,
    InsufficientMemory,
    InvalidModel,
    MillmError,
    ModelNotFound,
    ModelNotLoaded,
    ModelTooLarge,
)
from millm.lifecycle import models
from millm.lifecycle.models import cancel_load, load, unload
from millm.lifecycle.saes import attach
from millm.lifecycle.selection import resolve_active
from millm.lifecycle.steering import activate
from millm.profiles.schema import SteeringRequest
from millm.status import DesiredState, ModelSpec, SaeSpec, read_desired
from tests.fixtures.inside import Inside
from tests.lifecycle.asking import KNOB, code, post, streaming, text

TINY = ModelSpec(id="tiny-llama")
OTHER = ModelSpec(id="other-llama")


@pytest.fixture(autouse=True)
def as_before(inside: Inside) -> Iterator[None]:
    """Restore the tiny model with its SAE after each test."""
    yield
    inside.run(_as_before(inside))


async def _as_before(inside: Inside) -> None:
    state = inside.state
    if state.model is None or state.model.name != "tiny-llama" or "tiny" not in state.saes:
        await unload(state)
        await load(state, TINY)
        await attach(state, SaeSpec(id="tiny"))
    await activate(state, None)


def situation(inside: Inside) -> tuple[object, ...]:
    """The state that a failure must not change."""
    state = inside.state
    return (state.status, state.model, state.saes, state.active, state.desired, read_desired(state.hub.database))


def test_model_is_replaced_and_back(inside: Inside) -> None:
    base = text(inside)
    inside.run(load(inside.state, OTHER))
    assert inside.state.saes == {}
    assert text(inside, model="other-llama") != base
    assert code(post(inside)) == (404, "model_not_found")
    inside.run(load(inside.state, TINY))
    assert text(inside) == base


def test_gpt2_replaces_llama(inside: Inside) -> None:
    inside.run(load(inside.state, ModelSpec(id="gpt2")))
    assert inside.state.model is not None
    assert inside.state.model.facts.architecture == "GPT2LMHeadModel"
    assert text(inside, model="gpt2")


def test_unload_leaves_an_empty_server(inside: Inside) -> None:
    inside.run(unload(inside.state))
    assert inside.state.status == "empty"
    assert read_desired(inside.state.hub.database) == DesiredState()
    assert code(post(inside)) == (503, "model_not_loaded")
    assert httpx.get(f"{inside.url}/readyz").status_code == 503
    assert httpx.get(f"{inside.url}/healthz").status_code == 200


def test_loaded_model_is_not_reloaded(inside: Inside) -> None:
    first = inside.run(load(inside.state, OTHER))
    assert inside.run(load(inside.state, OTHER)) is first


def test_concurrent_equal_loads_share_one(inside: Inside) -> None:
    async def together() -> list[str]:
        return [model.facts.id for model in await asyncio.gather(*(load(inside.state, OTHER) for _ in range(5)))]

    assert len(set(inside.run(together()))) == 1


def test_load_options_are_part_of_the_spec(inside: Inside) -> None:
    loaded = inside.run(load(inside.state, ModelSpec(id="tiny-llama", dtype="bfloat16", context=64, slots=3)))
    assert (loaded.facts.dtype, loaded.facts.context_length, loaded.facts.slots) == ("bfloat16", 64, 3)
    assert code(post(inside, prompt="sea " * 70)) == (400, "context_length_exceeded")
    four = inside.run(load(inside.state, ModelSpec(id="tiny-llama", quantization="8bit")))
    assert four.facts.weights == "bitsandbytes 8-bit"
    eager = inside.run(load(inside.state, ModelSpec(id="tiny-llama", attention="eager", device_map="auto")))
    assert eager.facts.weights


def test_estimate_and_measurement_are_reported(inside: Inside) -> None:
    told = httpx.get(f"{inside.url}/api/status").json()["model"]
    assert told["estimate"]["verdict"] == "fits"
    assert 0 < told["facts"]["memory"]["weights"] <= told["estimate"]["weights"] * 1.1


def broken(tiny_model: Path, folder: Path, change: str) -> Path:
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    match change:
        case "nan":
            weights["model.norm.weight"][3] = torch.nan
        case "missing":
            del weights["model.layers.2.mlp.up_proj.weight"]
        case "mismatched":
            weights["model.layers.2.mlp.up_proj.weight"] = torch.zeros(7, 5)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "message"), [("nan", "NaN"), ("missing", "lacks"), ("mismatched", "wrong shape for")]
)
@pytest.mark.parametrize("makes_room", [False, True])
def test_invalid_checkpoint_changes_nothing(
    inside: Inside, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: str, message: str, makes_room: bool,
) -> None:  # fmt: skip
    """With and without unloading the previous model first."""
    name = f"broken-{change}-{makes_room}"
    inside.state.hub.library.import_model(broken(tiny_model, tmp_path / name, change))
    inside.run(activate(inside.state, resolve_active(inside.state, steering=SteeringRequest.model_validate(KNOB))))
    if makes_room:
        monkeypatch.setattr(models, "free_memory", lambda _device: 1)
    before, steered = situation(inside), text(inside)
    with pytest.raises(InvalidModel, match=message):
        inside.run(load(inside.state, ModelSpec(id=name), force=True))
    assert situation(inside) == before
    assert text(inside) == steered
    assert inside.state.cause is not None
    assert inside.state.cause.code == "invalid_model"


def test_too_large_model_is_rejected_unless_forced(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "free_memory", lambda _device: 1)
    before = situation(inside)
    with pytest.raises(ModelTooLarge, match=r"needs 0\.\d GB.*force"):
        inside.run(load(inside.state, OTHER))
    assert situation(inside) == before
    assert inside.run(load(inside.state, OTHER, force=True)).name == "other-llama"


@pytest.mark.parametrize(("kind", "error"), [("oom", InsufficientMemory), ("error", EngineFailed)])
def test_engine_failure_during_load_changes_nothing(inside: Inside, kind: str, error: type[MillmError]) -> None:
    before, base = situation(inside), text(inside)
    inside.run(inside.state.engine.inject(InjectFault(id="fault", point="load", kind=kind)))
    with pytest.raises(error):
        inside.run(load(inside.state, OTHER))
    assert situation(inside) == before
    assert text(inside) == base


def test_engine_crash_during_load_restores_the_previous_model(inside: Inside) -> None:
    before, base = situation(inside), text(inside)

    async def die() -> None:
        await inside.state.engine.inject(InjectFault(id="fault", point="load", kind="hang"))
        loading = asyncio.create_task(load(inside.state, OTHER))
        await asyncio.sleep(0.3)
        inside.state.engine.kill()
        with pytest.raises(MillmError, match="stopped"):
            await loading
        while inside.state.status != "ready":
            await asyncio.sleep(0.05)

    inside.run(die())
    assert situation(inside) == before
    assert text(inside) == base


def test_unknown_model_is_rejected(inside: Inside) -> None:
    with pytest.raises(ModelNotFound, match="other-llama"):
        inside.run(load(inside.state, ModelSpec(id="google/gemma-2-2b")))


def test_running_answers_finish_and_new_ones_are_rejected_during_a_load(inside: Inside) -> None:
    alone = text(inside, max_tokens=150)
    with streaming(inside, max_tokens=150) as stream:
        loading = asyncio.run_coroutine_threadsafe(load(inside.state, OTHER), inside.loop)
        while inside.state.status != "draining":
            assert not loading.done()
        refused = post(inside)
        assert loading.result(30).name == "other-llama"
    assert (stream.text, stream.error) == (alone, None)
    assert code(refused) == (503, "model_not_loaded")
    assert int(refused.headers["retry-after"]) > 0


def test_drain_timeout_ends_answers_with_an_error(inside: Inside) -> None:
    inside.state.settings = inside.state.settings.model_copy(update={"drain_timeout": 0.05})
    try:
        with streaming(inside, max_tokens=220) as stream:
            inside.run(unload(inside.state))
    finally:
        inside.state.settings = inside.state.settings.model_copy(update={"drain_timeout": 30.0})
    assert stream.error is not None
    assert stream.error["code"] == "model_not_loaded"


def test_load_can_be_cancelled(inside: Inside) -> None:
    before, base = situation(inside), text(inside)

    async def begin_and_give_up() -> None:
        loading = asyncio.create_task(load(inside.state, ModelSpec(id="gpt2")))
        while inside.state.load_in_progress is None:
            await asyncio.sleep(0)
        cancel_load(inside.state)
        with pytest.raises(ModelNotLoaded, match="given up"):
            await loading

    inside.run(begin_and_give_up())
    assert situation(inside) == before
    assert text(inside) == base


def test_cancel_without_a_load_is_rejected(inside: Inside) -> None:
    with pytest.raises(ModelNotLoaded, match="no load is in progress"):
        cancel_load(inside.state)


def test_change_outlives_its_caller(inside: Inside) -> None:
    async def leave() -> None:
        asked = asyncio.create_task(load(inside.state, OTHER))
        while inside.state.load_in_progress is None:
            await asyncio.sleep(0)
        asked.cancel()
        while inside.state.changing:
            await asyncio.sleep(0.01)

    inside.run(leave())
    assert inside.state.model is not None
    assert inside.state.model.name == "other-llama"
