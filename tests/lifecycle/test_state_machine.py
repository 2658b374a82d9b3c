"""Random sequences of changes: a failed change leaves the state unchanged, an acknowledged one persists."""

import json
import random
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from millm.errors import EngineFailed, InsufficientMemory, MillmError, ModelNotLoaded, SaeMismatch, SaeNotFound
from millm.lifecycle import changes
from millm.status import DesiredState, ModelSpec, SaeSpec, read_desired
from tests.fixtures.fakehub import FakeHub
from tests.fixtures.fakehub import serving as serving_hub
from tests.fixtures.inside import Inside, serving
from tests.lifecycle.bench import FEATURE, LONG, MODELS, SHORT, Bench, knob
from tests.lifecycle.conftest import stock
from tests.lifecycle.expected import PROFILE, SAES, Expected, Steered
from tests.lifecycle.test_models import broken

STATES = ("ready", "empty", "asleep")
"""Between two changes."""
GONE = "tiny/gpt2-that-is-not"
REMOTE = "tiny/llama"

on_llama = (
    SaeSpec(id="tiny"),
    SaeSpec(id="tiny", layer=2),
    SaeSpec(id="same-place"),
    SaeSpec(id="second"),
)
anyhow = tuple(SaeSpec(id=sae.id, layer=sae.layer, allow_model_mismatch=True) for sae in on_llama)
on_gpt2 = (SaeSpec(id="gpt2-sae"), SaeSpec(id="gpt2-sae", hook_point="blocks.2.hook_resid_post"))
nowhere = (SaeSpec(id="second", layer=5), SaeSpec(id="nobody"))

models = st.sampled_from(MODELS)
no_models = st.sampled_from((ModelSpec(id="nobody"), ModelSpec(id="broken")))
saes = st.sampled_from((*on_llama, *anyhow, *on_gpt2, *nowhere))
names = st.sampled_from((*SAES, "nobody"))
kinds = st.sampled_from(("oom", "error"))
rarely = st.integers(0, 29).map(lambda number: number == 17)
FAILURES = (InsufficientMemory, EngineFailed)


class Lifecycle(RuleBasedStateMachine):
    def __init__(self, bench: Bench, hub: FakeHub) -> None:
        super().__init__()
        self.bench, self.hub = bench, hub
        self.expected = Expected()
        self.asleep = False
        self._to_the_start()

    def _to_the_start(self) -> None:
        if self.bench.asleep or self.bench.state.desired != DesiredState(model=MODELS[0]):
            self.bench.unload()
        self.bench.load(MODELS[0])
        self.expected.load(MODELS[0])

    # --------------------------------------------------------------------------------------------------- models

    @rule(wanted=models)
    def load(self, wanted: ModelSpec) -> None:
        self.bench.load(wanted)
        self._woken(wanted)
        self.expected.load(wanted)

    @rule(wanted=no_models)
    def load_what_cannot_be(self, wanted: ModelSpec) -> None:
        error = self.expected.refuses_load(wanted)
        assert error is not None
        self._refused(lambda: self.bench.load(wanted), error)

    @rule(wanted=models, kind=kinds)
    def load_with_a_failure(self, wanted: ModelSpec, kind: str) -> None:
        if wanted != self.expected.model:
            self.bench.inject("load", kind)
            self._refused(lambda: self.bench.load(wanted), *FAILURES)

    @rule(wanted=models)
    def give_a_load_up(self, wanted: ModelSpec) -> None:
        if wanted != self.expected.model:
            self._refused(lambda: self.bench.load_and_give_up(wanted), ModelNotLoaded)

    @rule(sure=st.booleans())
    def unload(self, sure: bool) -> None:
        if sure:
            self.bench.unload()
            self.asleep = False
            self.expected.load(None)

    @precondition(lambda self: self.expected.model)
    @rule()
    def sleep(self) -> None:
        if not self.asleep:
            self.bench.sleep()
            self.asleep = True

    @precondition(lambda self: self.asleep)
    @rule(kind=kinds)
    def wake_with_a_failure(self, kind: str) -> None:
        assert self.expected.model
        self.bench.inject("load", kind)
        before = self.bench.situation()
        assert self.bench.post(self.expected.model).status_code in (500, 503)
        assert self.bench.situation() == before

    # ----------------------------------------------------------------------------------------------------- SAEs

    @rule(wanted=saes)
    def attach(self, wanted: SaeSpec) -> None:
        self._attach(wanted)

    @rule(wanted=saes, replaces=names)
    def replace(self, wanted: SaeSpec, replaces: str) -> None:
        self._attach(SaeSpec(**{**as_dict(wanted), "replaces": replaces}))

    @rule(wanted=saes, kind=kinds)
    def attach_with_a_failure(self, wanted: SaeSpec, kind: str) -> None:
        if self.expected.refuses_attach(wanted) is None:
            self._wake()
            self.bench.inject("attach", kind)
            self._refused(lambda: self.bench.attach(wanted), *FAILURES)

    @rule(name=names)
    def detach(self, name: str) -> None:
        if name in self.expected.saes:
            self.bench.detach(name)
            self.expected.detach(name)
            self.asleep = False
        else:
            self._refused(lambda: self.bench.detach(name), SaeNotFound)

    # ------------------------------------------------------------------------------------------------- steering

    @rule(name=names)
    def set_active(self, name: str) -> None:
        self._activate(Steered(name), is_possible=name in self.expected.saes)

    @rule()
    def set_profile_active(self) -> None:
        only = next(iter(self.expected.saes), "")
        fits = self.expected.model is not None and len(self.expected.saes) == 1
        self._activate(Steered(only, PROFILE), is_possible=fits)

    @rule()
    def clear_active(self) -> None:
        self.bench.activate(None)
        self.expected.active = None

    # -------------------------------------------------------------------------------------------------- answers

    @precondition(lambda self: self.expected.model)
    @rule()
    def answer_as_the_base_model(self) -> None:
        self._check(self.bench.ask(self._model, steering=None), None, SHORT)

    @precondition(lambda self: self.expected.model)
    @rule()
    def answer_with_what_is_active(self) -> None:
        self._check(self.bench.ask(self._model), self._active, SHORT)

    @precondition(lambda self: self.expected.saes)
    @rule(pick=st.integers(0, 7))
    def answer_steered(self, pick: int) -> None:
        name = self._one(pick)
        self._check(self.bench.ask(self._model, steering=knob(name)), self.expected.saes[name], SHORT)

    @precondition(lambda self: not self.expected.model)
    @rule()
    def nobody_answers(self) -> None:
        assert self.bench.post(MODELS[0]).status_code == 503

    @precondition(lambda self: self.expected.saes)
    @rule(pick=st.integers(0, 7), to=models, do=st.sampled_from(("detach", "load", "unload", "activate", "sleep")))
    def change_beside_an_answer(self, pick: int, to: ModelSpec, do: str) -> None:
        name, model, steered = self._one(pick), self._model, self.expected.saes[self._one(pick)]
        with self.bench.streaming(model, steering=knob(name)) as stream:
            self.asleep = False
            match do:
                case "detach":
                    self.detach(name)
                case "load":
                    self.load(to)
                case "unload":
                    self.unload(sure=True)
                case "activate":
                    self.set_active(name)
                case "sleep":
                    assert not changes.is_unload_due(self.bench.state)
        assert stream.error is None, stream.error
        assert stream.text == self.bench.reference(model, steered, LONG)

    @precondition(lambda self: self.expected.model)
    @rule()
    def leave_before_the_end(self) -> None:
        asked = {"model": self._model.id, "prompt": "The sea", "max_tokens": 60, "stream": True, "ignore_eos": True}
        address = f"{self.bench.inside.base_url}/completions"
        with httpx.stream("POST", address, json=asked, timeout=60, trust_env=False) as answer:
            next(answer.iter_lines())
        self.asleep = False

    @precondition(lambda self: self.expected.model)
    @rule(point=st.sampled_from(("prefill", "decode")))
    def an_answer_fails(self, point: str) -> None:
        self.bench.ask(self._model)
        self.asleep = False
        self.bench.inject(point, "error")  # type: ignore[arg-type]
        before = self.bench.situation()
        assert self.bench.post(self._model).status_code == 500
        assert self.bench.situation() == before

    @precondition(lambda self: self.expected.saes)
    @rule(point=st.sampled_from(("prefill", "decode")), sure=st.integers(0, 3))
    def memory_runs_out(self, point: str, sure: int) -> None:
        """The engine detaches the SAEs, and the answer finishes without them."""
        if sure:
            return
        self.bench.ask(self._model)
        self.asleep = False
        self.bench.inject(point, "oom")  # type: ignore[arg-type]
        self._check(self.bench.ask(self._model, steering=None), None, SHORT)
        self.expected.saes = {}

    # ---------------------------------------------------------------------------------------------- the library

    @rule(kind=st.sampled_from(("models", "saes")))
    def delete_what_is_used(self, kind: str) -> None:
        used = list(self.expected.saes) if kind == "saes" else [self._model.id] if self.expected.model else []
        before = self.bench.situation()
        for id in used:
            assert self.bench.delete(kind, id).status_code == 409
        assert self.bench.delete(kind, "nobody").status_code == 404
        assert self.bench.situation() == before

    @rule(sure=rarely)
    def delete_and_import(self, sure: bool) -> None:
        """Delete and import something unused."""
        library, free = self.bench.state.hub.library, next(id for id in SAES if id not in self.expected.saes)
        if sure:
            folder = library.locate_sae(free).folder.resolve()
            assert self.bench.delete("saes", free).status_code == 200
            self._refused(lambda: self.bench.attach(SaeSpec(id=free)), MillmError)
            library.import_sae(folder, free)

    @rule(sure=rarely, fails=st.booleans())
    def download(self, sure: bool, fails: bool) -> None:
        if not sure:
            return
        before = self.bench.situation()
        self.hub.fail(f"{REMOTE}/resolve", "status", status=403, error="GatedRepo", times=inf if fails else 0)
        job = self.bench.download(REMOTE)
        self.hub.forget()
        assert job["state"] == ("failed" if fails else "installed"), job
        if not fails:
            assert self.bench.delete("models", REMOTE).status_code == 200
        assert self.bench.situation() == before

    # ------------------------------------------------------------------------------------------------- the worst

    @rule(sure=rarely)
    def kill_the_engine(self, sure: bool) -> None:
        if sure:
            before = self.bench.situation()
            self.bench.kill()
            assert self.bench.situation() == before

    @rule(sure=st.integers(0, 3))
    def restart(self, sure: int) -> None:
        if sure == 0 and (self.expected.active is None or self.expected.steers):
            self.bench.restart()
            self.expected.saes = dict(self.expected.remembered)
            self.asleep = False

    # ----------------------------------------------------------------------------------------------- invariants

    @invariant()
    def it_is_as_expected(self) -> None:
        state, expected = self.bench.state, self.expected
        assert state.status == ("asleep" if self.asleep else "ready" if expected.model else "empty")
        assert state.status in STATES
        assert (state.model.name if state.model else None) == (expected.model.id if expected.model else None)
        assert set(state.saes) == set(expected.saes)
        assert state.model or not state.saes
        assert bool(state.active) == bool(expected.active)
        assert state.changing is None
        assert state.load_in_progress is None
        assert state.engine.closed_reason is None

    @invariant()
    def it_is_remembered(self) -> None:
        desired, expected = read_desired(self.bench.state.hub.database), self.expected
        assert desired == self.bench.state.desired
        assert desired.model == expected.model
        assert {sae.wanted.id: sae.wanted for sae in desired.saes} == {
            name: SaeSpec(**{**as_dict(sae), "replaces": None}) for name, sae in expected.remembered.items()
        }
        assert desired.profile == (expected.active.profile if expected.active else None)
        assert bool(desired.steering) == bool(expected.active and not expected.active.profile)
        assert expected.model or desired == DesiredState()

    @invariant()
    def the_engine_has_the_same(self) -> None:
        kept = self.bench.state.engine.snapshot
        if self.asleep:
            assert kept.model is None
        else:
            assert bool(kept.model) == bool(self.expected.model)
            assert set(kept.saes) == set(self.expected.saes)

    # ---------------------------------------------------------------------------------------------------- words

    @property
    def _model(self) -> ModelSpec:
        assert self.expected.model
        return self.expected.model

    @property
    def _active(self) -> SaeSpec | None:
        active = self.expected.active
        return self.expected.saes[active.sae] if active and self.expected.steers else None

    def _one(self, pick: int) -> str:
        return sorted(self.expected.saes)[pick % len(self.expected.saes)]

    def _attach(self, wanted: SaeSpec) -> None:
        error = self.expected.refuses_attach(wanted)
        if error:
            if error is SaeMismatch:
                self._wake()
            self._refused(lambda: self.bench.attach(wanted), error)
            return
        self.bench.attach(wanted)
        self.expected.attach(wanted)
        self.asleep = False

    def _wake(self) -> None:
        """Changes that need the engine wake the model, even if they then fail."""
        if self.asleep:
            self._check(self.bench.ask(self._model, steering=None), None, SHORT)

    def _activate(self, wanted: Steered, *, is_possible: bool) -> None:
        if is_possible:
            self.bench.activate(wanted)
            self.expected.active = wanted
        else:
            self._refused(lambda: self.bench.activate(wanted), MillmError)

    def _refused(self, work: Callable[[], None], *errors: type[MillmError]) -> None:
        before = self.bench.situation()
        with pytest.raises(errors):
            work()
        assert self.bench.situation() == before

    def _woken(self, wanted: ModelSpec) -> None:
        self.asleep = False
        assert self.bench.state.desired.model == wanted

    def _check(self, answer: str, steered_by: SaeSpec | None, length: int) -> None:
        self.asleep = False
        assert answer == self.bench.reference(self._model, steered_by, length)


def as_dict(wanted: SaeSpec) -> dict[str, object]:
    return {name: getattr(wanted, name) for name in SaeSpec.__struct_fields__}


@pytest.fixture(scope="module")
def hub(repositories: Path) -> Iterator[FakeHub]:
    with serving_hub(repositories) as running:
        yield running


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory, hub: FakeHub, shelves: Path, tiny_model: Path, tiny_sae: Path
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("machine")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**hub.environment(folder / "cache"), "MILLM_TESTING_FAULTS": "1"}.items():
            patch.setenv(name, value)
        patch.setattr(changes, "TICK_SECONDS", 0.002)
        with serving(tiny_model, tiny_sae, folder / "home", drain_timeout=5.0, download_reserve_bytes=0) as inside:
            yield ready(inside, folder, shelves, tiny_model, tiny_sae)


def ready(inside: Inside, folder: Path, shelves: Path, tiny_model: Path, tiny_sae: Path) -> Bench:
    """Import everything, and record each model's answer."""
    stock(inside, shelves, tiny_model, tiny_sae)
    inside.state.hub.library.import_model(broken(tiny_model, folder / "broken", "nan"))
    bench = Bench(inside)
    profile = folder / f"{PROFILE}.json"
    profile.write_text(json.dumps({"name": PROFILE, "description": "One feature.", "features": [FEATURE]}))
    inside.state.profiles.import_file(profile)
    bench.unload()
    for model in MODELS:
        fitting = on_gpt2 if model.id == "gpt2" else anyhow
        bench.measure(model, fitting)
    return bench


def run(bench: Bench, hub: FakeHub, config: pytest.Config, examples: int) -> None:
    """Without shrinking: a real-time failure may not repeat. The steps are printed."""
    chosen = config.getoption("--hypothesis-seed") or random.SystemRandom().getrandbits(32)
    print(f"to repeat it: --hypothesis-seed={chosen}")  # noqa: T201  shown when it fails
    machine = seed(int(chosen))(lambda: Lifecycle(bench, hub))
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=50, deadline=None, database=None, phases=[Phase.generate],
            verbosity=Verbosity.debug,
            suppress_health_check=[HealthCheck.too_slow],
        ),  # a step is a real change of a real server: some take seconds
    )  # fmt: skip


@pytest.mark.slow
def test_four_times_fifty_steps(bench: Bench, hub: FakeHub, pytestconfig: pytest.Config) -> None:
    run(bench, hub, pytestconfig, 4)


@pytest.mark.machine
@pytest.mark.timeout(1800)
def test_two_hundred_times_fifty_steps(bench: Bench, hub: FakeHub, pytestconfig: pytest.Config) -> None:
    run(bench, hub, pytestconfig, 200)
