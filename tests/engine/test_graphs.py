"""A replayed pass gives what the pass itself gives: through a tape of operations here, CUDA graphs on a GPU."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from packaging.version import Version

from millm.engine import model_runner as slots_runner
from millm.engine.cuda_graphs import GRAPH_RECORDERS
from millm.engine.messages import Generate, LoadModel, ModelLoaded, SamplingParams
from millm.engine.model_runner import SlotsRunner
from millm.engine.runner_selection import choose_runner
from millm.sae.steering import Steering, Watch
from tests.engine import test_architectures, test_batching, zoo
from tests.engine.machine import Machine, load
from tests.engine.tape import BrokenTape, DeafTape, Tape
from tests.engine.test_batching import NEW, STEERINGS, Expected, arrivals, assert_same, steer

PROMPT = tuple(range(120, 150))
ROOM = 6
"""Rows; with three or five in use, a recording has rows that stand for nobody."""
DEVICES = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
"""A tape records on the CPU, and CUDA itself where there is a GPU."""


def start(
    model: Path, sae: Path, home: Path, recorder: Callable[[], object], device: str = "cpu", **how: object
) -> Machine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(slots_runner.PREFILL_CHUNK_TOKENS, device, 5)
        patch.setitem(GRAPH_RECORDERS, "cpu", recorder)
        return load(Machine(), model, sae, home, runner="slots", slots=ROOM, graphs=True, device=device, **how)


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(device: str, tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> Expected:
    return Expected(load(Machine(), tiny_model, tiny_sae, canonical_root, runner="plain", device=device))


@pytest.fixture
def replaying(device: str, tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> Iterator[Machine]:
    machine = start(tiny_model, tiny_sae, canonical_root, Tape, device)
    assert verdict(machine) == ("slots + graphs", "")
    Tape.recorded = Tape.replayed = 0
    yield machine
    assert graphs(machine).failure is None


def verdict(machine: Machine) -> tuple[str, str]:
    facts = next(event.facts for event in machine.events if isinstance(event, ModelLoaded))
    return facts.runner, facts.runner_reason


def graphs(machine: Machine) -> slots_runner.GraphRunner:
    runner = machine.engine.executor.runner
    assert isinstance(runner, SlotsRunner)
    assert runner.graphs is not None
    return runner.graphs


def assert_as_alone(machine: Machine, expected: Expected, *requests: Generate) -> None:
    """All at once, each as alone."""
    machine.events.clear()
    machine.say(*requests)
    answers = machine.run_until({request.id for request in requests})
    for request in requests:
        expected._machine.events.clear()
        expected._machine.say(request)
        assert_same(answers[request.id], expected._machine.run_until({request.id})[request.id])


def ask(name: str, steering: Steering | None, prompt: tuple[int, ...] = PROMPT, **fields: object) -> Generate:
    return Generate(
        id=name, prompt=prompt, max_tokens=NEW, sampling=SamplingParams(temperature=0), steering=steering,
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


@given(arrivals=arrivals)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_company(
    replaying: Machine, expected: Expected, arrivals: list[tuple[int, int, int, int, int, int | None]]
) -> None:
    """Sequences join and leave, steered by sums and clamps, watched or not; some passes cannot be replayed."""
    test_batching.test_any_company_leaves_an_answer_as_it_is.hypothesis.inner_test(replaying, expected, arrivals)


def test_other_steering_is_no_other_recording(replaying: Machine, expected: Expected) -> None:
    watch = (Watch(sae="tiny", features=(3, 40), tokens="generated"),)
    first = steer((5, 3.0, "clamp"), (8, 2.0, "add"))
    assert_as_alone(replaying, expected, ask("a", first, watch=watch), ask("b", STEERINGS[1]), ask("c", None))
    recorded = set(graphs(replaying)._recorded)
    assert recorded
    second = steer((11, 4.0, "min_clamp"), (2, 0.0, "ablate"), (30, -3.0, "add"))
    others = (Watch(sae="tiny", features=(1, 2, 60), tokens="generated", when="after"),)
    assert_as_alone(replaying, expected, ask("d", second, watch=others), ask("e", STEERINGS[4]), ask("f", None))
    assert set(graphs(replaying)._recorded) == recorded


def test_recordings_of_a_cache_that_moved_are_dropped(replaying: Machine, expected: Expected) -> None:
    assert_as_alone(replaying, expected, ask("short", STEERINGS[1]))
    before = [step for step, _ in graphs(replaying)._recorded.values()]
    assert before
    long = tuple(3 + n % 200 for n in range(250))
    assert_as_alone(replaying, expected, ask("long", STEERINGS[1], long), ask("beside", STEERINGS[5]))
    recorded = graphs(replaying)._recorded
    assert not [step for step, _ in recorded.values() if step in before]
    assert max(shape.columns for shape in recorded) > 256


def test_what_cannot_be_recorded_is_run_as_it_is(
    tiny_model: Path, tiny_sae: Path, canonical_root: Path, expected: Expected
) -> None:
    BrokenTape.works = 2
    machine = start(tiny_model, tiny_sae, canonical_root, BrokenTape)
    assert verdict(machine) == ("slots + graphs", "")
    requests = [ask(str(number), steering) for number, steering in enumerate(STEERINGS)]
    assert_as_alone(machine, expected, *requests)
    assert graphs(machine).failure == "operation not permitted when stream is capturing"
    assert not graphs(machine)._recorded


@pytest.mark.parametrize(("recorder", "why"), [(BrokenTape, "not permitted"), (DeafTape, "logits differ by")])
def test_the_self_test_finds_out(
    tiny_model: Path,
    tiny_sae: Path,
    canonical_root: Path,
    expected: Expected,
    recorder: Callable[[], object],
    why: str,
) -> None:
    BrokenTape.works = 0
    machine = start(tiny_model, tiny_sae, canonical_root, recorder)
    name, reason = verdict(machine)
    assert name == "slots"
    assert "not replayed as graphs" in reason
    assert why in reason
    assert_as_alone(machine, expected, ask("a", STEERINGS[1]))


def test_a_device_without_a_recorder_just_runs(tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> None:
    machine = load(Machine(), tiny_model, tiny_sae, canonical_root, graphs=True, device="cpu")
    assert verdict(machine) == ("slots", "")


@pytest.mark.parametrize("name", zoo.BATCHED)
@pytest.mark.parametrize("device", DEVICES)
def test_every_architecture_is_generate(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.build(name).to(device)
    prompts, new = test_architectures.PROMPTS, test_architectures.NEW
    answers = [zoo.greedy(model, prompt, new) for prompt in prompts]
    monkeypatch.setitem(GRAPH_RECORDERS, "cpu", Tape)
    command = LoadModel(id="x", path="", slots=ROOM, graphs=True)
    verdict = choose_runner(model, command, test_architectures.nothing_steered)
    assert verdict.name == ("slots + graphs" if recordable(name) else "slots"), verdict.reason
    Tape.recorded = Tape.replayed = 0
    verdict.runner.prefill_chunk = 7
    assert test_architectures.run(verdict.runner) == answers
    if device == "cpu":
        assert (0 < Tape.recorded < Tape.replayed) == recordable(name)


def recordable(name: str) -> bool:
    """Before 5.23 transformers asks the device which of longrope's factors to use."""
    return name != "phi3_longrope" or Version(transformers.__version__) >= Version("5.23")
