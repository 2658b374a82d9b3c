"""SAEs are attached, detached and replaced under running sequences, whose output does not change."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from millm.engine import model_runner as slots_runner
from millm.engine.attached_saes import Attachment
from millm.engine.cuda_graphs import GRAPH_RECORDERS
from millm.engine.messages import (
    AttachSae,
    CommandFailed,
    DetachSae,
    Embed,
    Finished,
    Generate,
    SaeAttached,
    SamplingParams,
    SetActiveSteering,
    TextEmbedded,
)
from millm.engine.model_runner import SlotsRunner
from millm.sae.hooks import decoder_layers
from millm.sae.steering import FeatureSetting, SaeSteering, Steering, Watch, coefficients
from tests.engine.engine_harness import CALIBRATION, Answer, EngineHarness, load
from tests.engine.graph_recorders import ReplayRecorder
from tests.fixtures.tiny import write_sae

PROMPT = tuple(range(120, 150))
NEW = 8


def steer(attachment: str = "", sae: str = "tiny") -> Steering:
    setting = FeatureSetting(index=3, strength=20.0)
    return Steering(by_sae=(SaeSteering(sae, (coefficients(setting),), attachment),))


def ask(name: str, steering: Steering | None = None, **fields: object) -> Generate:
    return Generate(
        id=name, prompt=PROMPT, max_tokens=NEW, sampling=SamplingParams(temperature=0), steering=steering,
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip


class Engine:
    """A harness that records its attachments and the expected output of each request."""

    def __init__(self, harness: EngineHarness, files: dict[str, Path], home: Path) -> None:
        self.harness, self.files, self.home = harness, files, home
        self.which = "one"
        """Folder of the SAE `tiny`."""
        self.attachment: str | None = "attach"
        self._count = 0

    def next(self) -> int:
        self._count += 1
        return self._count

    def attaching(self, which: str, replaces: str | None = None) -> AttachSae:
        return AttachSae(
            id=f"attach-{self.next()}", sae="tiny", path=str(self.files[which]), canonical_root=str(self.home),
            calibration_ids=CALIBRATION, model_name="tiny-llama", replaces=replaces,
        )  # fmt: skip

    def attach(self, which: str) -> None:
        """Replaces the current attachment, if any."""
        command = self.attaching(which, "tiny" if self.attachment else None)
        self.harness.send(command)
        while not any(isinstance(event, SaeAttached) and event.id == command.id for event in self.harness.events):
            assert not [
                event for event in self.harness.events if isinstance(event, CommandFailed) and event.id == command.id
            ]
            self.harness.engine.run_once()
        self.which, self.attachment = which, command.id

    def detach(self) -> None:
        self.harness.send(DetachSae(id=f"detach-{self.next()}", sae="tiny"))
        self.attachment = None

    @property
    def model(self) -> PreTrainedModel:
        model = self.harness.engine.executor.model
        assert model is not None
        return model

    @property
    def hooks(self) -> int:
        """Forward hooks on all layers; the fault injector's is permanent."""
        return sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks)
            for layer in decoder_layers(self.model)
            for module in layer.modules()
        )

    @property
    def hooked(self) -> list[Attachment]:
        return self.harness.engine.executor.attached_saes._hooked_attachments

    def end_all(self, ids: set[str]) -> dict[str, Answer]:
        answers = self.harness.run_until(ids)
        self.settle()
        return answers

    def settle(self) -> None:
        """Run until all commands are handled and unused hooks removed."""
        while not self.harness.engine.executor.scheduler.is_idle:
            self.harness.engine.run_once()
        self.harness.events.clear()
        self.harness.execute()
        self.harness.events.clear()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_sae: Path) -> dict[str, Path]:
    return {"one": tiny_sae, "other": write_sae(tmp_path_factory.mktemp("other") / "tiny", seed=5)}


@pytest.fixture(scope="module")
def testing() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLM_TESTING_FAULTS", "1")
        patch.setitem(slots_runner.PREFILL_CHUNK_TOKENS, "cpu", 5)
        patch.setitem(GRAPH_RECORDERS, "cpu", ReplayRecorder)
        yield patch


@pytest.fixture(scope="module", params=["plain", "slots", "graphs"])
def engine(
    request: pytest.FixtureRequest,
    testing: pytest.MonkeyPatch,
    tiny_model: Path,
    files: dict[str, Path],
    canonical_root: Path,
) -> Engine:
    runner = "plain" if request.param == "plain" else "slots"
    how = {"runner": runner, "slots": 3, "graphs": request.param == "graphs"}
    return Engine(load(EngineHarness(), tiny_model, files["one"], canonical_root, **how), files, canonical_root)


@pytest.fixture(scope="module")
def alone(tiny_model: Path, files: dict[str, Path], canonical_root: Path) -> dict[str | None, Answer]:
    """Output with each SAE, from an engine that had no other."""
    watch = (Watch(sae="tiny", features=(3, 11), tokens="all"),)
    found: dict[str | None, Answer] = {}
    for which, sae in files.items():
        harness = load(EngineHarness(), tiny_model, sae, canonical_root, runner="plain")
        found[which] = harness.answer(ask("steered", steer(), watch=watch))
        found[None] = harness.answer(ask("base"))
    assert len({tuple(answer.tokens) for answer in found.values()}) == 3
    return found


@pytest.fixture(autouse=True)
def one_attached(engine: Engine) -> None:
    engine.settle()
    engine.attach("one")
    engine.settle()


def assert_nothing_left(engine: Engine, before: int) -> None:
    """The original number of hooks, and no hook's table row in use."""
    attached = engine.hooked
    assert len(attached) == (1 if engine.attachment else 0)
    assert engine.hooks == before + len(attached)
    assert all(one.hook.is_unused for one in attached)


KINDS = ("base", "steered", "watched", "following", "embed", "one", "other", "detach", "turn", "cancel")
steps = st.lists(st.sampled_from((*KINDS, "steered", "turn")), min_size=4, max_size=24)


@given(steps=steps)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_sequences_of_attach_and_detach(
    engine: Engine, alone: dict[str | None, Answer], steps: list[str]
) -> None:
    if not engine.attachment:
        engine.attach("one")
    engine.settle()
    bare = engine.hooks - 1
    due: dict[str, str | None] = {}
    cancelled: set[str] = set()
    for step in steps:
        apply_step(engine, step, due, cancelled)
    answers = engine.end_all(set(due))
    for name, which in due.items():
        end = answers[name].end
        if name in cancelled:
            continue
        assert isinstance(end, Finished), (end, name)
        assert answers[name].tokens == alone[which].tokens, name
        if "watched" in name:
            assert values(answers[name]) == [pytest.approx(v, abs=2e-4) for v in values(alone[which])]
    assert_nothing_left(engine, bare)


def apply_step(engine: Engine, step: str, due: dict[str, str | None], cancelled: set[str]) -> None:
    name = f"{step}-{engine.next()}"
    attached = engine.attachment or ""
    match step:
        case "base":
            due[name] = None
            engine.harness.send(ask(name))
        case "following":
            due[name] = None
            engine.harness.send(ask(name, steer("long-gone"), follows_active=True))
        case "steered" | "watched" if attached:
            watch = (Watch(sae="tiny", features=(3, 11), tokens="all", attachment=attached),)
            due[name] = engine.which
            engine.harness.send(ask(name, steer(attached), watch=watch if step == "watched" else ()))
            started(engine, name)
        case "embed" if attached:
            engine.harness.send(
                Embed(id=name, tokens=PROMPT, watch=(Watch(sae="tiny", features=(3,), attachment=attached),))
            )
        case "one" | "other":
            engine.attach(step)
        case "detach" if attached:
            engine.detach()
        case "turn":
            engine.harness.send(ask(f"nothing-{name}"))  # so that there is something to do
            engine.harness.engine.run_once()
        case "cancel" if due:
            cancelled.add(next(iter(due)))
            engine.harness.engine.executor.scheduler.cancel(next(iter(due)))


def started(engine: Engine, name: str) -> None:
    """Wait until the sequence has hook rows; a queued one would be rejected when its SAE is detached."""
    while not any(
        one.id == name and one.hook_state is not None for one in engine.harness.engine.executor.scheduler.all_sequences
    ) and not any(isinstance(event, Finished | CommandFailed) and event.id == name for event in engine.harness.events):
        engine.harness.engine.run_once()


def values(answer: Answer) -> list[tuple[float, ...]]:
    return [reading.values for reading in answer.readings]


def test_prefix_of_a_detached_sae_is_not_reused(engine: Engine, alone: dict[str | None, Answer]) -> None:
    """Not by requests for another SAE of the same name, with or without its attachment id."""
    harness = engine.harness
    assert harness.answer(ask("before", steer())).tokens == alone["one"].tokens
    harness.send(ask("through", steer()))
    started(engine, "through")
    engine.attach("other")
    waiting = harness.answer(ask("meanwhile", steer()))
    assert harness.run_until({"through"})["through"].tokens == alone["one"].tokens
    after = harness.answer(ask("after", steer()))
    assert waiting.tokens == after.tokens == alone["other"].tokens
    assert harness.answer(ask("unsteered")).tokens == alone[None].tokens


def test_preempted_sequence_continues_with_its_detached_sae(engine: Engine, alone: dict[str | None, Answer]) -> None:
    """Preempted after its SAE was detached and another got its name: it restarts with its own."""
    harness = engine.harness
    for name in ("first", "second"):
        harness.send(ask(name, steer()))
        started(engine, name)
    engine.attach("other")
    youngest = next(one for one in harness.engine.executor.scheduler.all_sequences if one.id == "second")
    work = harness.engine.executor
    assert work.runner is not None
    work.runner.release(youngest)
    youngest.restart()
    work.scheduler.requeue(youngest)
    answers = harness.run_until({"first", "second"})
    assert answers["first"].tokens == answers["second"].tokens == alone["one"].tokens
    assert harness.answer(ask("after", steer())).tokens == alone["other"].tokens


def test_follower_starts_without_a_detached_sae(engine: Engine, alone: dict[str | None, Answer]) -> None:
    """Between the detach and `SetActiveSteering` the request does not fail."""
    harness, old = engine.harness, engine.attachment or ""
    engine.attach("other")
    without = harness.answer(ask("without", steer(old), follows_active=True))
    assert without.tokens == alone[None].tokens
    harness.send(
        ask("follower", steer(old), follows_active=True), SetActiveSteering(steering=steer(engine.attachment or ""))
    )
    assert harness.run_until({"follower"})["follower"].tokens == alone["other"].tokens


def test_request_naming_a_detached_sae_fails(engine: Engine) -> None:
    harness, old = engine.harness, engine.attachment or ""
    harness.send(ask("late", steer(old)), DetachSae(id="detach", sae="tiny"))
    engine.attachment = None
    end = harness.run_until({"late"})["late"].end
    assert isinstance(end, CommandFailed)
    assert end.code == "sae_detached"


def test_queued_text_fails_when_its_sae_is_detached(engine: Engine) -> None:
    harness, bare = engine.harness, engine.hooks - 1
    watch = (Watch(sae="tiny", features=(3, 11), attachment=engine.attachment or ""),)
    texts = [Embed(id=f"text-{number}", tokens=PROMPT, watch=watch) for number in range(3)]
    harness.send(*texts)
    harness.engine.run_once()
    engine.detach()
    while not harness.engine.executor.scheduler.is_idle:
        harness.engine.run_once()
    ends = {event.id: event for event in harness.events if isinstance(event, TextEmbedded | CommandFailed)}
    assert isinstance(ends["text-0"], TextEmbedded)
    assert [ends[id].code for id in ("text-1", "text-2") if isinstance(ends[id], CommandFailed)] == ["sae_detached"] * 2
    engine.settle()
    assert_nothing_left(engine, bare)


def test_graphs_are_dropped_with_their_sae(engine: Engine, alone: dict[str | None, Answer]) -> None:
    runner = engine.harness.engine.executor.runner
    if not isinstance(runner, SlotsRunner) or runner.graphs is None:
        assert engine.harness.answer(ask("steered", steer())).tokens == alone["one"].tokens
        return
    engine.harness.answer(ask("steered", steer()))
    assert {hook for shape in runner.graphs._graphs for hook, _ in shape.hooks} == {engine.hooked[0].hook}
    engine.detach()
    engine.settle()
    assert not [shape for shape in runner.graphs._graphs if shape.hooks]
    assert runner.graphs.failure is None
