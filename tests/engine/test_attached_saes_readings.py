"""Activations before and after a steering are `SparseAutoencoder.encode` of what a plain hook saw, token by token.

In one batch with requests that are steered otherwise, for prompt and generated tokens.
"""

import random
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor
from transformers import LlamaForCausalLM

from millm.engine.messages import AttachSae, Embed, Generate, Reading
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.config import MAX_WATCHED_FEATURES
from millm.sae.formats import canonicalise
from millm.sae.steering import FeatureSetting, Positions, Watch
from tests.engine.conftest import Engine
from tests.engine.engine_harness import CALIBRATION
from tests.engine.test_core_generation import NEW, PROMPT, add, decoder, hooked, request, steer  # noqa: F401
from tests.fixtures.tiny import FEATURES, HOOK_LAYER
from tests.sae.test_steering_hook import open_topk

NAMED = (3, 11, 40)
WATCH = Watch(sae="tiny", features=NAMED, top_k=2, sample_every=1, tokens="all", when="both")
OTHERS = (
    request("clamped", steer(FeatureSetting(index=11, strength=7.0, mode="clamp")), watch=(WATCH,)),
    request("after", steer(add(3, 20.0)), watch=(replace(WATCH, when="after"),)),
    request("plain", watch=(replace(WATCH, tokens="generated"),)),
    request("base"),
)


def ids_and_readings(engine: Engine, one: Generate) -> tuple[list[int], list[Reading]]:
    """Readings of one request in a batch with other steerings and watches."""
    events, *_ = engine.generate(one, *OTHERS)
    tokens = [event.token for event in events if hasattr(event, "token")]
    return [*one.prompt, *tokens], [reading for event in events for reading in event.readings]


def around(model: LlamaForCausalLM, ids: list[int], delta: Tensor) -> tuple[Tensor, Tensor]:
    """x before and after delta [T, d] was added  # each [T, d]"""
    seen: list[Tensor] = []

    def change(x: Tensor) -> Tensor:
        seen.extend((x[0], (x + delta)[0]))
        return x + delta

    with torch.inference_mode(), hooked(model, change):
        model(torch.tensor([ids]), use_cache=False)
    return seen[0], seen[1]


def assert_reads(readings: list[Reading], before: Tensor, after: Tensor, positions: list[int]) -> None:
    """Compares with activations [T, F]."""
    assert [reading.position for reading in readings] == positions
    for reading in readings:
        for values, top, exact in (
            (reading.values, reading.top, before[reading.position]),
            (reading.after, reading.top_after, after[reading.position]),
        ):
            assert values == pytest.approx(exact[list(NAMED)].tolist(), abs=2e-4)
            assert [value for _, value in top] == pytest.approx(exact.topk(2).values.tolist(), abs=2e-4)
            assert [value for _, value in top] == pytest.approx([float(exact[i]) for i, _ in top], abs=2e-4)


@pytest.mark.parametrize("positions", ["all", "generated"])
def test_additive_delta_appears_only_after_steering(
    engine: Engine,
    reference: LlamaForCausalLM,
    decoder: Tensor,  # noqa: F811
    tiny_sae: Path,
    canonical_root: Path,
    positions: Positions,
) -> None:
    steering = steer(add(3, 8.0), add(9, -4.0), positions=positions)
    ids, readings = ids_and_readings(engine, request("both", steering, watch=(WATCH,)))
    first = 1 if positions == "all" else len(PROMPT) - 1
    fed = ids[:-1]
    keep = (torch.arange(len(fed)) >= first).float()[:, None]
    before, after = around(reference, fed, (8.0 * decoder[3] - 4.0 * decoder[9]) * keep)
    sae = SparseAutoencoder.open(canonicalise(tiny_sae, canonical_root))
    assert_reads(readings, sae.encode(before), sae.encode(after), list(range(len(fed))))
    assert len(fed) == len(PROMPT) + NEW - 1
    assert readings[first].after != readings[first].values
    assert readings[first - 1].after == readings[first - 1].values


def test_clamped_activation_before_and_after(engine: Engine) -> None:
    """Equal to the value at tokens where the feature is active; elsewhere its threshold hides the distance."""
    held = request("held", steer(FeatureSetting(index=11, strength=7.0, mode="clamp")), watch=(WATCH,))
    _, readings = ids_and_readings(engine, held)
    fired = [reading for reading in readings[1:] if reading.values[1] > 0]
    assert [reading.after[1] for reading in fired] == pytest.approx([7.0] * len(fired), abs=1e-3)
    assert len({round(reading.values[1], 3) for reading in fired}) > 3


def test_unsteered_readings_before_and_after_are_equal(engine: Engine) -> None:
    unsteered = request("unsteered", watch=(replace(WATCH, tokens="all"),))
    _, readings = ids_and_readings(engine, unsteered)
    assert all(reading.after == reading.values and reading.after for reading in readings)
    assert all(reading.top_after == reading.top and reading.top_after for reading in readings)
    (text,) = engine.loop.run(engine.client.embed(Embed(id="text", tokens=PROMPT, watch=(WATCH,))))
    assert all(reading.after == reading.values and reading.top_after == reading.top for reading in text.readings)
    assert len(text.readings) == len(PROMPT)


def test_topk_sae_reads_before_and_after(
    engine: Engine,
    reference: LlamaForCausalLM,
    tmp_path: Path,
    canonical_root: Path,
) -> None:
    """Behind another SAE's steering on the previous layer, each SAE reads before and after its own."""
    sae = open_topk(tmp_path, rescale=False)
    point = f"blocks.{HOOK_LAYER + 1}.hook_resid_post"
    attach = AttachSae(
        id="attach-topk", sae="topk", path=str(tmp_path / "source"), canonical_root=str(canonical_root),
        calibration_ids=CALIBRATION, model_name="tiny-llama", hook_point=point,
    )  # fmt: skip
    engine.loop.run(engine.client.attach(attach))
    try:
        steering = steer(FeatureSetting(index=5, strength=30.0, sae="topk"))
        steering = replace(steering, by_sae=(replace(steering.by_sae[0], sae="topk"),))
        ids, readings = ids_and_readings(engine, request("both", steering, watch=(replace(WATCH, sae="topk"),)))
    finally:
        engine.loop.run(engine.client.detach("topk"))
    seen: list[Tensor] = []
    delta = 30.0 * sae.features([5]).dec[0] * (torch.arange(len(ids) - 1) > 0)[:, None]

    def change(_m: object, _a: object, x: Tensor) -> Tensor:
        seen.extend((x[0], (x + delta)[0]))
        return x + delta

    handle = reference.model.layers[HOOK_LAYER + 1].register_forward_hook(change)
    with torch.inference_mode():
        reference(torch.tensor([ids[:-1]]), use_cache=False)
    handle.remove()
    assert_reads(readings, sae.activations(seen[0]), sae.activations(seen[1]), list(range(len(ids) - 1)))


def test_request_and_server_watches_are_combined(engine: Engine) -> None:
    """128 and 64 features at once give the same values as two halves."""
    many = tuple(random.Random(1).sample(range(FEATURES), FEATURES)) * 2
    assert len(many) == MAX_WATCHED_FEATURES
    watch = Watch(sae="tiny", features=many, tokens="all", when="both")
    wide = ids_and_readings(engine, request("wide", steer(add(3, 8.0)), watch=(watch,)))[1]
    half = replace(watch, features=many[:FEATURES])
    narrow = ids_and_readings(engine, request("narrow", steer(add(3, 8.0)), watch=(half,)))[1]
    assert [one.values[FEATURES:] for one in wide] == [pytest.approx(one.values, abs=1e-4) for one in narrow]
    assert [one.after[:FEATURES] for one in wide] == [pytest.approx(one.after, abs=1e-4) for one in narrow]
