"""longrope: sequences below, above and across the boundary at the same time."""

from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedModel

from millm.engine import model_runner as slots_runner
from millm.engine.messages import Finished, Generate, LoadModel, SamplingParams
from millm.engine.model_runner import PlainRunner
from tests.engine import architectures
from tests.engine.engine_harness import Answer, EngineHarness

BOUNDARY = 32
SYSTEM = tuple(range(40, 60))
REQUESTS = {
    "short": ((*SYSTEM, 5), 8),
    "crosses": ((*SYSTEM, 7, 8), 20),
    "crosses at once": ((*SYSTEM, *range(90, 102)), 6),
    "long": ((*SYSTEM, *range(80, 100)), 8),
    "just behind": ((*SYSTEM, *range(80, 93)), 8),
    "brief": ((9,), 28),
}
"""(prompt, number of tokens to generate); the prompts share a prefix."""


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return architectures.build("phi3_longrope")


@pytest.fixture(scope="module")
def expected(model: PreTrainedModel) -> dict[str, list[int]]:
    return {name: architectures.greedy(model, prompt, new) for name, (prompt, new) in REQUESTS.items()}


@pytest.fixture(scope="module", params=["slots", "plain"])
def harness(
    request: pytest.FixtureRequest, model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineHarness]:
    """Four rows and chunks of five tokens."""
    folder = tmp_path_factory.mktemp("longrope")
    model.save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(slots_runner.PREFILL_CHUNK_TOKENS, "cpu", 5)
        harness = EngineHarness()
        harness.execute(LoadModel(id="load", path=str(folder), runner=request.param, slots=4))
        yield harness


def ask(harness: EngineHarness, names: list[str], *, pause: int = 0) -> dict[str, Answer]:
    """One after the other, `apart` steps apart."""
    harness.events.clear()
    for name in names:
        prompt, new = REQUESTS[name]
        harness.send(Generate(id=name, prompt=prompt, max_tokens=new, sampling=SamplingParams(temperature=0)))
        for _ in range(pause):
            harness.engine.run_once()
            harness.send()
    return harness.run_until(set(names))


@pytest.mark.parametrize("pause", [0, 1, 4])
def test_longrope_matches_generate_below_above_and_across(
    harness: EngineHarness, expected: dict[str, list[int]], pause: int
) -> None:
    """In every order, twice, so that prefixes of both sides are reused."""
    names = list(REQUESTS)
    for turned in range(len(names)):
        answers = ask(harness, names[turned:] + names[:turned], pause=pause)
        assert {name: answers[name].tokens for name in names} == expected


def test_outputs_differ_across_the_boundary(model: PreTrainedModel, expected: dict[str, list[int]]) -> None:
    """Only the long factors explain the output across the boundary, so that the test above is meaningful."""
    one_sided = architectures.build("phi3_longrope")
    one_sided.load_state_dict(model.state_dict())
    one_sided.config.rope_parameters["long_factor"] = one_sided.config.rope_parameters["short_factor"]
    differ = {
        name
        for name, (prompt, new) in REQUESTS.items()
        if architectures.greedy(one_sided, prompt, new) != expected[name]
    }
    assert {"crosses", "long", "just behind"} <= differ
    assert "short" not in differ


def test_prefix_is_reused_only_on_its_side_of_the_boundary(harness: EngineHarness) -> None:
    """Other factors give other keys for the same tokens."""
    cached = {}
    for name in ("short", "long", "just behind", "short"):
        end = ask(harness, [name])[name].end
        assert isinstance(end, Finished)
        cached[name] = end.cached_tokens
    if isinstance(harness.engine.executor.runner, PlainRunner):
        assert set(cached.values()) == {0}
        return
    assert cached["short"] == len(REQUESTS["short"][0]) - 1
    assert cached["just behind"] >= len(SYSTEM)
    slots = harness.engine.executor.runner._slots  # type: ignore[union-attr]
    sides = {slot.steering[1] for slot in slots if slot.finite_count}
    assert sides == {False, True}
    assert torch.isfinite(harness.engine.executor.runner.cache._layers[0].keys).all()  # type: ignore[union-attr]
