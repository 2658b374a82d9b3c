"""Sampled `top_k` depends on the position only; watched features are read at every token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from transformers import LlamaForCausalLM

from millm.engine.attached_saes import AttachedSaes
from millm.engine.messages import Generate, Reading, SaeFacts
from millm.engine.scheduler import ScheduledRow, Sequence
from millm.sae import hooks
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from millm.sae.steering import Watch
from millm.sae.steering_hook import SteeringHook
from tests.engine.conftest import Engine
from tests.engine.test_core_generation import NEW, PROMPT, PUSH, add, request, steer
from tests.fixtures.tiny import FEATURES, HOOK_LAYER

EVERY = 3
"""Sampling interval of the SAE in these tests."""
CLAMP = steer(replace(add(7, 5.0), mode="clamp"))


@pytest.fixture
def attached_saes(reference: LlamaForCausalLM, tiny_sae: Path, canonical_root: Path) -> Iterator[AttachedSaes]:
    sae = SparseAutoencoder.open(canonicalise(tiny_sae, canonical_root))
    point = hooks.resolve_hook_point(reference, f"blocks.{HOOK_LAYER}.hook_resid_post")
    facts = SaeFacts(
        sae="tiny", architecture="jumprelu", layer=HOOK_LAYER, hook_point=point.name, features=FEATURES,
        steerable=True, exclude_special_tokens=False, residual_norm=1.0, variance_explained=None, l0=1.0,
        warnings=(), sha256="0", sample_every=EVERY,
    )  # fmt: skip
    attached_saes = AttachedSaes()
    attached_saes.attach(SteeringHook(sae, reference.device, EVERY), point, facts)
    yield attached_saes
    attached_saes.remove_all()


def watch(**fields: object) -> Watch:
    return Watch(**{"sae": "tiny", "top_k": 4, "tokens": "all", **fields})  # type: ignore[arg-type]


REQUESTS = [
    request("a", PUSH, watch=(watch(features=(3, 11)),)),
    request("b", watch=(watch(top_k=2, sample_every=2, tokens="prompt"),)),
    request("c"),
    request("d", CLAMP, watch=(watch(top_k=6, sample_every=1, when="after", features=(7,)),)),
    request("e", PUSH, watch=(watch(top_k=1, sample_every=5, tokens="generated"),)),
]


def read(
    attached_saes: AttachedSaes, model: LlamaForCausalLM, requests: list[Generate], lengths: tuple[int, ...]
) -> list[list[Reading]]:
    """Readings of PROMPT, whose last 3 tokens count as generated, in passes of the given lengths."""
    prompts = [replace(one, prompt=PROMPT[:-3]) for one in requests]
    sequences = [Sequence.from_request(one) for one in prompts]
    for sequence in sequences:
        attached_saes.start(sequence)
    readings: list[list[Reading]] = [[] for _ in requests]
    cache, start = None, 0
    for length in lengths:
        tokens = PROMPT[start : start + length]
        rows = [ScheduledRow(sequence, start, tokens) for sequence in sequences]
        attached_saes.prepare(rows)
        with torch.inference_mode():
            cache = model(torch.tensor([tokens] * len(rows)), past_key_values=cache, use_cache=True).past_key_values
        for found, new in zip(readings, attached_saes.collect(rows), strict=True):
            found += new
        start += length
    for sequence in sequences:
        attached_saes.finish(sequence)
    return readings


def close(found: list[Reading], expected: list[Reading]) -> None:
    assert [reading.position for reading in found] == [reading.position for reading in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-4)
        assert [index for index, _ in one.top] == [index for index, _ in other.top]
        assert [value for _, value in one.top] == pytest.approx([value for _, value in other.top], abs=1e-4)


def sampled(readings: list[Reading]) -> list[int]:
    return [reading.position for reading in readings if reading.top]


def test_chunked_batch_readings_match_single_passes(attached_saes: AttachedSaes, reference: LlamaForCausalLM) -> None:
    single_pass = (len(PROMPT),)
    alone = [read(attached_saes, reference, [one], single_pass)[0] for one in REQUESTS]
    assert [sampled(readings) for readings in alone] == [[0, 3, 6, 9], [0, 2, 4, 6], [], [*range(10)], []]
    assert [len(readings) for readings in alone] == [10, 7, 0, 10, 3]
    for lengths in (single_pass, (3, 3, 3, 1), (7, 1, 1, 1), (1,) * 10):
        for found, expected in zip(read(attached_saes, reference, REQUESTS, lengths), alone, strict=True):
            close(found, expected)


def test_named_features_are_read_at_every_token(attached_saes: AttachedSaes, reference: LlamaForCausalLM) -> None:
    every, thirds = (request("x", PUSH, watch=(watch(features=(3, 11), sample_every=n),)) for n in (1, EVERY))
    (exact,), (found,) = (read(attached_saes, reference, [one], (len(PROMPT),)) for one in (every, thirds))
    close([replace(one, top=()) for one in found], [replace(one, top=()) for one in exact])
    close([one for one in found if one.top], [one for one in exact if one.position % EVERY == 0])


def test_sampling_interval_follows_the_position(engine: Engine) -> None:
    def readings(**fields: object) -> list[Reading]:
        events, *_ = engine.generate(request("sampled", PUSH, watch=(watch(features=(3,), **fields),)))
        return [reading for event in events for reading in event.readings]

    exact = readings(sample_every=1)
    assert sampled(exact) == list(range(len(PROMPT) + NEW - 1))
    fourths = readings(sample_every=4)
    assert [replace(one, top=()) for one in fourths] == [replace(one, top=()) for one in exact]
    close([one for one in fourths if one.top], [one for one in exact if one.position % 4 == 0])
    measured = sampled(readings())
    assert measured == sampled(exact)[:: measured[1] if len(measured) > 1 else len(exact)]
