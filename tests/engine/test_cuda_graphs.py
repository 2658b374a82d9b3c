"""Replayed passes match eager ones: by a recorder of operations on a CPU, by CUDA graphs on a GPU."""

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
from tests.engine import architectures, test_model_runner_architectures, test_model_runner_batching
from tests.engine.engine_harness import EngineHarness, load
from tests.engine.graph_recorders import FailingRecorder, IdleRecorder, ReplayRecorder
from tests.engine.test_model_runner_batching import NEW, STEERINGS, Expected, arrivals, assert_same, steer

PROMPT = tuple(range(120, 150))
ROOM = 6
"""Rows; with three or five in use, a graph has padding rows."""
DEVICES = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
"""Also CUDA if the machine has a GPU."""


def start(
    model: Path, sae: Path, home: Path, recorder: Callable[[], object], device: str = "cpu", **how: object
) -> EngineHarness:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(slots_runner.PREFILL_CHUNK_TOKENS, device, 5)
        patch.setitem(GRAPH_RECORDERS, "cpu", recorder)
        return load(EngineHarness(), model, sae, home, runner="slots", slots=ROOM, graphs=True, device=device, **how)


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(device: str, tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> Expected:
    return Expected(load(EngineHarness(), tiny_model, tiny_sae, canonical_root, runner="plain", device=device))


@pytest.fixture
def replaying(device: str, tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> Iterator[EngineHarness]:
    harness = start(tiny_model, tiny_sae, canonical_root, ReplayRecorder, device)
    assert runner_facts(harness) == ("slots + graphs", "")
    ReplayRecorder.recorded = ReplayRecorder.replayed = 0
    yield harness
    assert graphs(harness).failure is None


def runner_facts(harness: EngineHarness) -> tuple[str, str]:
    facts = next(event.facts for event in harness.events if isinstance(event, ModelLoaded))
    return facts.runner, facts.runner_reason


def graphs(harness: EngineHarness) -> slots_runner.GraphRunner:
    runner = harness.engine.executor.runner
    assert isinstance(runner, SlotsRunner)
    assert runner.graphs is not None
    return runner.graphs


def assert_as_alone(harness: EngineHarness, expected: Expected, *requests: Generate) -> None:
    """All at once, each compared with its single run."""
    harness.events.clear()
    harness.send(*requests)
    answers = harness.run_until({request.id for request in requests})
    for request in requests:
        expected._machine.events.clear()
        expected._machine.send(request)
        assert_same(answers[request.id], expected._machine.run_until({request.id})[request.id])


def ask(name: str, steering: Steering | None, prompt: tuple[int, ...] = PROMPT, **fields: object) -> Generate:
    return Generate(
        id=name, prompt=prompt, max_tokens=NEW, sampling=SamplingParams(temperature=0), steering=steering,
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


@given(arrivals=arrivals)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_replayed_random_batches_match_single_runs(
    replaying: EngineHarness, expected: Expected, arrivals: list[tuple[int, int, int, int, int, int | None]]
) -> None:
    """Sequences join and leave, steered by sums and clamps, watched or not; some passes cannot be replayed."""
    test = test_model_runner_batching.test_random_batches_match_single_runs
    test.hypothesis.inner_test(replaying, expected, arrivals)


def test_changed_steering_reuses_the_graph(replaying: EngineHarness, expected: Expected) -> None:
    watch = (Watch(sae="tiny", features=(3, 40), tokens="generated"),)
    first = steer((5, 3.0, "clamp"), (8, 2.0, "add"))
    assert_as_alone(replaying, expected, ask("a", first, watch=watch), ask("b", STEERINGS[1]), ask("c", None))
    recorded = set(graphs(replaying)._graphs)
    assert recorded
    second = steer((11, 4.0, "min_clamp"), (2, 0.0, "ablate"), (30, -3.0, "add"))
    others = (Watch(sae="tiny", features=(1, 2, 60), tokens="generated", when="after"),)
    assert_as_alone(replaying, expected, ask("d", second, watch=others), ask("e", STEERINGS[4]), ask("f", None))
    assert set(graphs(replaying)._graphs) == recorded


def test_reallocated_cache_drops_graphs(replaying: EngineHarness, expected: Expected) -> None:
    assert_as_alone(replaying, expected, ask("short", STEERINGS[1]))
    before = [step for step, _ in graphs(replaying)._graphs.values()]
    assert before
    long = tuple(3 + n % 200 for n in range(250))
    assert_as_alone(replaying, expected, ask("long", STEERINGS[1], long), ask("beside", STEERINGS[5]))
    recorded = graphs(replaying)._graphs
    assert not [step for step, _ in recorded.values() if step in before]
    assert max(shape.columns for shape in recorded) > 256


def test_unrecordable_pass_runs_eagerly(
    tiny_model: Path, tiny_sae: Path, canonical_root: Path, expected: Expected
) -> None:
    FailingRecorder.works = 2
    harness = start(tiny_model, tiny_sae, canonical_root, FailingRecorder)
    assert runner_facts(harness) == ("slots + graphs", "")
    requests = [ask(str(number), steering) for number, steering in enumerate(STEERINGS)]
    assert_as_alone(harness, expected, *requests)
    assert graphs(harness).failure == "operation not permitted when stream is capturing"
    assert not graphs(harness)._graphs


@pytest.mark.parametrize(("recorder", "why"), [(FailingRecorder, "not permitted"), (IdleRecorder, "logits differ by")])
def test_self_test_detects_failing_graphs(
    tiny_model: Path,
    tiny_sae: Path,
    canonical_root: Path,
    expected: Expected,
    recorder: Callable[[], object],
    why: str,
) -> None:
    FailingRecorder.works = 0
    harness = start(tiny_model, tiny_sae, canonical_root, recorder)
    name, reason = runner_facts(harness)
    assert name == "slots"
    assert "not replayed as graphs" in reason
    assert why in reason
    assert_as_alone(harness, expected, ask("a", STEERINGS[1]))


def test_device_without_a_recorder_runs_eagerly(tiny_model: Path, tiny_sae: Path, canonical_root: Path) -> None:
    harness = load(EngineHarness(), tiny_model, tiny_sae, canonical_root, graphs=True, device="cpu")
    assert runner_facts(harness) == ("slots", "")


@pytest.mark.parametrize("name", architectures.BATCHED)
@pytest.mark.parametrize("device", DEVICES)
def test_replayed_architectures_match_generate(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = architectures.build(name).to(device)
    prompts, new = test_model_runner_architectures.PROMPTS, test_model_runner_architectures.NEW
    answers = [architectures.greedy(model, prompt, new) for prompt in prompts]
    monkeypatch.setitem(GRAPH_RECORDERS, "cpu", ReplayRecorder)
    command = LoadModel(id="x", path="", slots=ROOM, graphs=True)
    choice = choose_runner(model, command, test_model_runner_architectures.nothing_steered)
    assert choice.name == ("slots + graphs" if recordable(name) else "slots"), choice.reason
    ReplayRecorder.recorded = ReplayRecorder.replayed = 0
    choice.runner.prefill_chunk = 7
    assert test_model_runner_architectures.run(choice.runner) == answers
    if device == "cpu":
        assert (0 < ReplayRecorder.recorded < ReplayRecorder.replayed) == recordable(name)


def recordable(name: str) -> bool:
    """Before 5.23 transformers reads from the device which of longrope's factors to use."""
    return name != "phi3_longrope" or Version(transformers.__version__) >= Version("5.23")
