"""Stored state: a change that cannot be stored is not made, and a restart restores the rest."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from millm.engine.supervisor import CrashLimiter
from millm.errors import NotStored
from millm.lifecycle.models import load, unload
from millm.lifecycle.restore import restore
from millm.lifecycle.saes import attach, detach
from millm.lifecycle.selection import resolve_active
from millm.lifecycle.steering import activate
from millm.profiles.schema import SteeringRequest
from millm.state import State
from millm.status import ModelSpec, SaeSpec
from tests.fixtures.inside import Inside
from tests.lifecycle.asking import KNOB, text
from tests.lifecycle.bench import Bench

TINY = SaeSpec(id="tiny")
CHANGES: dict[str, Callable[[State], Coroutine[Any, Any, object]]] = {
    "load": lambda state: load(state, ModelSpec(id="other-llama")),
    "unload": unload,
    "attach": lambda state: attach(state, SaeSpec(id="second")),
    "replace": lambda state: attach(state, SaeSpec(id="same-place", replaces="tiny")),
    "attach anew": lambda state: attach(state, SaeSpec(id="tiny", replaces="tiny")),
    "detach": lambda state: detach(state, "tiny"),
    "steer": lambda state: activate(state, None),
}


@contextmanager
def read_only(inside: Inside) -> Iterator[None]:
    """Make writes fail, as on a full disk."""
    connection = inside.state.hub.database._connection
    connection.execute("PRAGMA query_only = ON")
    yield
    connection.execute("PRAGMA query_only = OFF")


@pytest.fixture(autouse=True)
def steered(inside: Inside) -> str:
    """The tiny model steered by its SAE."""
    inside.run(load(inside.state, ModelSpec(id="tiny-llama")))
    for sae in list(inside.state.saes):
        inside.run(detach(inside.state, sae))
    inside.run(attach(inside.state, TINY))
    asked = SteeringRequest.model_validate(KNOB)
    inside.run(activate(inside.state, resolve_active(inside.state, steering=asked)))
    return text(inside)


@pytest.mark.parametrize("change", CHANGES)
def test_state_after_restart_is_unchanged(inside: Inside, steered: str, change: str) -> None:
    before = Bench(inside).situation()
    with read_only(inside), pytest.raises(NotStored, match="make room"):
        inside.run(CHANGES[change](inside.state))
    assert Bench(inside).situation() == before
    assert text(inside) == steered
    inside.run(CHANGES[change](inside.state))
    assert Bench(inside).situation() != before or change == "attach anew"


def test_replacing_sae_is_restored_alone(inside: Inside) -> None:
    """After a restart the replaced SAE does not exist."""
    inside.run(attach(inside.state, SaeSpec(id="same-place", replaces="tiny")))
    Bench(inside).restart()
    assert set(inside.state.saes) == {"same-place"}


def test_dropped_sae_does_not_block_later_ones(inside: Inside) -> None:
    inside.run(activate(inside.state, None))
    inside.call(inside.state.engine._degrade, "for a test")
    inside.run(inside.state.engine.detach("tiny"))
    inside.run(attach(inside.state, SaeSpec(id="same-place")))
    Bench(inside).restart()
    assert set(inside.state.saes) == {"same-place"}


def test_change_waits_for_an_engine_restart(inside: Inside) -> None:
    """Otherwise the restore would overwrite the new load."""
    inside.kill_engine()
    inside.run(load(inside.state, ModelSpec(id="other-llama")))
    inside.state.engine._crash_limiter = CrashLimiter()
    assert inside.state.engine.snapshot.saes == {}
    assert inside.state.saes == {}
    base = text(inside, model="other-llama")
    inside.run(unload(inside.state))
    inside.run(load(inside.state, ModelSpec(id="other-llama")))
    assert text(inside, model="other-llama") == base


def test_restoring_nothing_is_empty(inside: Inside) -> None:
    inside.run(unload(inside.state))
    inside.run(restore(inside.state, inside.state.desired))
    assert inside.state.status == "empty"
