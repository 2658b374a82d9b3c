"""A text's vector is the base model's, bit-identical beside any other requests."""

import asyncio
import itertools
import random
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from transformers import LlamaForCausalLM, RobertaConfig, RobertaModel, T5Config, T5Model

from millm.engine.client import MAX_TEXTS_IN_FLIGHT
from millm.engine.messages import (
    AttachSae,
    Cancel,
    CommandFailed,
    Embed,
    Finished,
    Generate,
    InjectFault,
    LoadModel,
    ModelLoaded,
    Pooling,
    SamplingParams,
    SetActiveSteering,
    TextEmbedded,
)
from millm.engine.scoring import normalised
from millm.errors import NonFiniteOutput, QueueFull, Timeout
from millm.sae.steering import Coefficients, SaeSteering, Steering, Watch
from tests.engine.conftest import CALIBRATION, Engine, collect
from tests.engine.test_model_runner_batching import EngineHarness
from tests.fixtures.close import assert_close
from tests.fixtures.encoders import write_encoder

TEXTS = [tuple(random.Random(number).choices(range(3, 300), k=length)) for number, length in enumerate((1, 5, 40, 90))]
WATCH = (Watch(sae="tiny", features=(3, 11), top_k=2, sample_every=1),)
PUSH = Steering(by_sae=(SaeSteering("tiny", (Coefficients(index=3, alpha=6.0, beta=0.0, lo=6.0, hi=6.0),)),))
GREEDY = SamplingParams(temperature=0.0)


def numbers(event: TextEmbedded) -> np.ndarray:
    return np.frombuffer(event.vector, dtype="<f4")


def texts(name: str, **more: object) -> list[Embed]:
    return [Embed(id=f"{name}-{place}", tokens=tokens, **more) for place, tokens in enumerate(TEXTS)]  # type: ignore[arg-type]


def embedded(harness: EngineHarness, *commands: Embed) -> list[bytes]:
    """The vectors in order."""
    harness.send(*commands)
    ids = {command.id for command in commands}
    while len(found := {e.id: e.vector for e in harness.events if isinstance(e, TextEmbedded) and e.id in ids}) < len(
        ids
    ):
        assert not [event for event in harness.events if isinstance(event, CommandFailed)]
        harness.engine.run_once()
    return [found[command.id] for command in commands]


def load(harness: EngineHarness, folder: Path, **how: object) -> ModelLoaded | CommandFailed:
    harness.execute(LoadModel(id="load", path=str(folder), special_ids=(0, 1, 2), **how))  # type: ignore[arg-type]
    return next(
        event for event in harness.events if isinstance(event, ModelLoaded | CommandFailed) and event.id == "load"
    )


def attach(harness: EngineHarness, sae: Path, root: Path) -> None:
    harness.execute(
        AttachSae(id="attach", sae="tiny", path=str(sae), canonical_root=str(root), calibration_ids=CALIBRATION,
                  model_name="tiny-llama")
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ against transformers


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_vector_matches_plain_transformers(engine: Engine, reference: LlamaForCausalLM, pooling: Pooling) -> None:
    found = engine.loop.run(engine.client.embed(*texts(pooling, pooling=pooling)))
    for tokens, event in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            hidden = reference.model(torch.tensor([tokens]), use_cache=False).last_hidden_state[0]
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1], "max": hidden.amax(0)}[pooling]
        np.testing.assert_allclose(numbers(event), (vector / vector.norm()).numpy(), atol=2e-6)
        assert np.linalg.norm(numbers(event)) == pytest.approx(1, abs=1e-6)


def test_watched_embedding_reads_as_a_watched_prompt(engine: Engine) -> None:
    """Compares with the readings of a prompt of the same tokens."""
    found = engine.loop.run(engine.client.embed(*texts("watched", watch=WATCH)))
    for tokens, event in zip(TEXTS, found, strict=True):
        watch = (replace(WATCH[0], tokens="prompt"),)
        request = Generate(id="prompt", prompt=tokens, max_tokens=1, sampling=GREEDY, watch=watch)
        prompt = [reading for part in engine.generate(request)[0] for reading in part.readings]
        assert len(event.readings) == len(tokens)
        assert_close([tuple_of(reading) for reading in event.readings], [tuple_of(reading) for reading in prompt])


def tuple_of(reading: object) -> tuple[object, ...]:
    return tuple(getattr(reading, name) for name in ("sae", "position", "values", "top"))


# ---------------------------------------------------------------------------------------- nothing changes one bit of it


def test_vector_is_bit_identical_with_and_without_saes(tiny_model: Path, tiny_sae: Path, tmp_path: Path) -> None:
    harness = EngineHarness()
    load(harness, tiny_model)
    bare = embedded(harness, *texts("bare"))
    attach(harness, tiny_sae, tmp_path)
    assert embedded(harness, *texts("attached")) == bare
    assert embedded(harness, *texts("watched", watch=WATCH)) == bare
    busy = [
        Generate(id=f"busy-{n}", prompt=TEXTS[n], max_tokens=200, sampling=GREEDY, steering=PUSH, follows_active=n > 1)
        for n in range(4)
    ]
    harness.send(SetActiveSteering(steering=PUSH), *busy)
    harness.engine.run_once()
    assert embedded(harness, *texts("beside", watch=WATCH)) == bare
    assert not [event for event in harness.events if isinstance(event, Finished) and event.id.startswith("busy")]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=24))
def test_vectors_do_not_depend_on_order_or_count(engine: Engine, order: list[int]) -> None:
    alone = {tokens: engine.loop.run(engine.client.embed(Embed(id="alone", tokens=tokens)))[0] for tokens in TEXTS}
    together = engine.loop.run(
        engine.client.embed(*(Embed(id=f"together-{n}", tokens=TEXTS[place]) for n, place in enumerate(order)))
    )
    assert [event.vector for event in together] == [alone[TEXTS[place]].vector for place in order]


# ------------------------------------------------------------------------------------------------- beside other work


def test_sequences_decode_between_two_texts(tiny_model: Path) -> None:
    """At most one text per step: each sequence gets a token between two vectors."""
    harness = EngineHarness()
    load(harness, tiny_model)
    harness.send(
        Generate(id="stream", prompt=TEXTS[1], max_tokens=40, sampling=GREEDY),
        *(Embed(id=f"text-{n}", tokens=TEXTS[3]) for n in range(12)),
    )
    harness.events.clear()
    harness.run_until({"stream"})
    order = [type(event) for event in harness.events]
    assert order.count(TextEmbedded) == 12
    assert (TextEmbedded, TextEmbedded) not in itertools.pairwise(order)


def test_long_job_occupies_few_places(engine: Engine) -> None:
    async def some_of_many() -> int:
        job = asyncio.create_task(engine.client.embed(*(Embed(id=f"m-{n}", tokens=TEXTS[2]) for n in range(200))))
        await asyncio.sleep(0.02)
        seen = engine.client.in_flight
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        await collect(engine.client.generate(Generate(id="after", prompt=TEXTS[0], max_tokens=2)))
        return seen

    assert engine.loop.run(some_of_many()) == MAX_TEXTS_IN_FLIGHT
    assert engine.client.in_flight == 0


def test_full_queue_rejects_texts(engine: Engine) -> None:
    async def overfill() -> None:
        one = Generate(id="", prompt=TEXTS[1], max_tokens=150, sampling=GREEDY)
        full = [replace(one, id=f"full-{n}") for n in range(engine.client.capacity)]
        running = engine.client.generate(*full)
        await anext(running)
        try:
            await engine.client.embed(Embed(id="one-more", tokens=TEXTS[0]))
        finally:
            await running.aclose()
            while engine.client.in_flight:
                await asyncio.sleep(0.01)

    with pytest.raises(QueueFull, match="waiting"):
        engine.loop.run(overfill())


def test_expired_deadline_fails_the_text(engine: Engine) -> None:
    with pytest.raises(Timeout):
        engine.loop.run(engine.client.embed(Embed(id="late", tokens=TEXTS[3], deadline_seconds=0.0)))
    assert engine.client.in_flight == 0


def test_queued_text_can_be_cancelled(tiny_model: Path) -> None:
    harness = EngineHarness()
    load(harness, tiny_model)
    harness.events.clear()
    harness.execute(Embed(id="gone", tokens=TEXTS[0]), Cancel(id="gone"))
    (end,) = [event for event in harness.events if getattr(event, "id", "") == "gone"]
    assert isinstance(end, Finished)
    assert end.reason == "cancelled"


def test_out_of_memory_fails_only_the_text(
    tiny_model: Path, tiny_sae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLM_TESTING_FAULTS", "1")
    harness = EngineHarness()
    load(harness, tiny_model)
    attach(harness, tiny_sae, tmp_path)
    harness.events.clear()
    harness.send(Generate(id="stream", prompt=TEXTS[1], max_tokens=20, sampling=GREEDY, steering=PUSH, watch=WATCH))
    harness.engine.run_once()
    harness.send(
        InjectFault(id="fault", point="prefill", kind="oom"), Embed(id="unlucky", tokens=TEXTS[3], watch=WATCH)
    )
    harness.run_until({"stream"})
    (failed,) = [event for event in harness.events if isinstance(event, CommandFailed)]
    assert (failed.id, failed.code) == ("unlucky", "insufficient_memory")
    stream = harness.answers()["stream"]
    assert isinstance(stream.end, Finished)
    assert stream.end.receipt is not None
    assert stream.end.receipt.degraded is None
    harness.events.clear()
    assert embedded(harness, *texts("again", watch=WATCH))


def test_overflowing_hidden_states_are_reported() -> None:
    with pytest.raises(NonFiniteOutput, match="finite"):
        normalised(torch.tensor([1.0, float("inf")]))


# --------------------------------------------------------------------------------------------------------- encoders


def test_encoder_embeds_and_rejects_generation(tmp_path: Path, tiny_sae: Path) -> None:
    harness = EngineHarness()
    loaded = load(harness, write_encoder(tmp_path / "bert"), generates=False)
    assert isinstance(loaded, ModelLoaded)
    assert (loaded.facts.generates, loaded.facts.runner, loaded.facts.context_length) == (False, "encoder", 64)
    refused = [event for event in harness.events if isinstance(event, CommandFailed)]
    assert {(event.id, event.code) for event in refused} == {("nothing", "model_cannot_generate")}
    harness.events.clear()
    assert len(set(embedded(harness, *(Embed(id=f"e-{n}", tokens=(2, 9 + n, 3)) for n in range(3))))) == 3
    attach(harness, tiny_sae, tmp_path)
    codes = {event.id: event.code for event in harness.events if isinstance(event, CommandFailed)}
    assert codes["attach"] == "sae_mismatch"


def test_positions_before_padding_idx_do_not_count(tmp_path: Path) -> None:
    """RoBERTa's configuration counts 66 positions, but text can use 64."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    RobertaModel(RobertaConfig(vocab_size=99, max_position_embeddings=66, **sizes)).save_pretrained(tmp_path)
    harness = EngineHarness()
    loaded = load(harness, tmp_path, generates=False)
    assert isinstance(loaded, ModelLoaded)
    assert loaded.facts.context_length == 64
    harness.events.clear()
    assert embedded(harness, Embed(id="longest", tokens=(5,) * 64))


def test_encoder_decoder_is_rejected_at_load(tmp_path: Path) -> None:
    """An encoder-decoder has no hidden states without decoder input."""
    from_t5(tmp_path)
    failed = load(EngineHarness(), tmp_path, generates=False)
    assert isinstance(failed, CommandFailed)
    assert failed.code == "invalid_model"
    assert "cannot embed" in failed.message


def from_t5(folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5Model(T5Config(vocab_size=99, decoder_start_token_id=0, **sizes)).save_pretrained(folder)
