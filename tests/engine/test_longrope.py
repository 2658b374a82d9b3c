"""Two sets of rotary factors: sequences on either side of the boundary, and across it, beside each other."""

from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedModel

from millm.engine import model_runner as slots_runner
from millm.engine.messages import Finished, Generate, LoadModel, SamplingParams
from millm.engine.model_runner import PlainRunner
from tests.engine import zoo
from tests.engine.machine import Answer, Machine

BOUNDARY = 32
SYSTEM = tuple(range(40, 60))
ASKED = {
    "short": ((*SYSTEM, 5), 8),
    "crosses": ((*SYSTEM, 7, 8), 20),
    "crosses at once": ((*SYSTEM, *range(90, 102)), 6),
    "long": ((*SYSTEM, *range(80, 100)), 8),
    "just behind": ((*SYSTEM, *range(80, 93)), 8),
    "brief": ((9,), 28),
}
"""Prompts that share a beginning, and tokens to generate."""


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return zoo.build("phi3_longrope")


@pytest.fixture(scope="module")
def expected(model: PreTrainedModel) -> dict[str, list[int]]:
    return {name: zoo.greedy(model, prompt, new) for name, (prompt, new) in ASKED.items()}


@pytest.fixture(scope="module", params=["slots", "plain"])
def machine(
    request: pytest.FixtureRequest, model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Four rows and chunks of five tokens."""
    folder = tmp_path_factory.mktemp("longrope")
    model.save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(slots_runner.PREFILL_CHUNK_TOKENS, "cpu", 5)
        machine = Machine()
        machine.do(LoadModel(id="load", path=str(folder), runner=request.param, slots=4))
        yield machine


def ask(machine: Machine, names: list[str], *, pause: int = 0) -> dict[str, Answer]:
    """One after the other, so many steps apart."""
    machine.events.clear()
    for name in names:
        prompt, new = ASKED[name]
        machine.say(Generate(id=name, prompt=prompt, max_tokens=new, sampling=SamplingParams(temperature=0)))
        for _ in range(pause):
            machine.engine.run_once()
            machine.say()
    return machine.run_until(set(names))


@pytest.mark.parametrize("pause", [0, 1, 4])
def test_each_is_generate_on_whichever_side_and_across(
    machine: Machine, expected: dict[str, list[int]], pause: int
) -> None:
    """In every order, and twice, so that prefixes of both sides lie in the rows and are gone on from."""
    names = list(ASKED)
    for turned in range(len(names)):
        answers = ask(machine, names[turned:] + names[:turned], pause=pause)
        assert {name: answers[name].tokens for name in names} == expected


def test_the_boundary_shows(model: PreTrainedModel, expected: dict[str, list[int]]) -> None:
    """With the short factors throughout, what crosses would be answered otherwise: or the test above tests nothing."""
    one_sided = zoo.build("phi3_longrope")
    one_sided.load_state_dict(model.state_dict())
    one_sided.config.rope_parameters["long_factor"] = one_sided.config.rope_parameters["short_factor"]
    differ = {name for name, (prompt, new) in ASKED.items() if zoo.greedy(one_sided, prompt, new) != expected[name]}
    assert {"crosses", "long", "just behind"} <= differ
    assert "short" not in differ


def test_a_prefix_is_gone_on_from_on_its_own_side_only(machine: Machine) -> None:
    """The same twenty tokens turned by other factors are other keys."""
    cached = {}
    for name in ("short", "long", "just behind", "short"):
        end = ask(machine, [name])[name].end
        assert isinstance(end, Finished)
        cached[name] = end.cached_tokens
    if isinstance(machine.engine.executor.runner, PlainRunner):
        assert set(cached.values()) == {0}
        return
    assert cached["short"] == len(ASKED["short"][0]) - 1
    assert cached["just behind"] >= len(SYSTEM)
    slots = machine.engine.executor.runner._slots  # type: ignore[union-attr]
    sides = {slot.steering[1] for slot in slots if slot.finite_count}
    assert sides == {False, True}
    assert torch.isfinite(machine.engine.executor.runner.cache._layers[0].keys).all()  # type: ignore[union-attr]
