"""Attaching and detaching during answers; mismatches name both sides."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millm.engine.messages import InjectFault
from millm.errors import (
    EngineFailed,
    InsufficientMemory,
    MillmError,
    ModelNotLoaded,
    SaeMismatch,
    SaeModelMismatch,
    SaeNotFound,
)
from millm.lifecycle.models import load, unload
from millm.lifecycle.saes import attach, detach
from millm.lifecycle.selection import resolve_active
from millm.lifecycle.steering import activate
from millm.profiles.schema import SteeringRequest
from millm.status import ModelSpec, SaeSpec, read_desired
from tests.fixtures.inside import Inside
from tests.fixtures.repos import STAND_IN_WIDTH
from tests.fixtures.tiny import HOOK_LAYER, WIDTH, write_sae
from tests.lifecycle.asking import KNOB, code, post, streaming, text

TINY = SaeSpec(id="tiny")


@pytest.fixture(autouse=True)
def as_before(inside: Inside) -> Iterator[None]:
    """Restore the state with only `tiny` attached and nothing active after each test."""
    yield
    inside.run(_as_before(inside))


async def _as_before(inside: Inside) -> None:
    state = inside.state
    for sae, attached in list(state.saes.items()):
        if (sae, attached.facts.layer) != ("tiny", HOOK_LAYER):
            await detach(state, sae)
    if "tiny" not in state.saes:
        await attach(state, TINY)
    await activate(state, None)


def situation(inside: Inside) -> tuple[object, ...]:
    state = inside.state
    return (state.status, state.model, state.saes, state.active, state.desired, read_desired(state.hub.database))


def make_active(inside: Inside, **steering: Any) -> None:
    asked = SteeringRequest.model_validate({**KNOB, **steering})
    inside.run(activate(inside.state, resolve_active(inside.state, steering=asked)))


def test_reattached_sae_steers_as_before(inside: Inside) -> None:
    base, steered = text(inside), text(inside, steering=KNOB)
    assert steered != base
    inside.run(detach(inside.state, "tiny"))
    assert text(inside) == base
    assert code(post(inside, steering=KNOB)) == (400, "invalid_steering")
    inside.run(attach(inside.state, TINY))
    assert text(inside, steering=KNOB) == steered


def test_saes_on_several_layers_add_up(inside: Inside) -> None:
    one = text(inside, steering=KNOB)
    inside.run(attach(inside.state, SaeSpec(id="second")))
    both = {"features": [{"index": 3, "strength": 6, "sae": "tiny"}, {"index": 5, "strength": 6, "sae": "second"}]}
    assert text(inside, steering={"features": both["features"][:1]}) == one
    assert text(inside, steering=both) not in (one, text(inside))
    inside.run(detach(inside.state, "second"))
    assert text(inside, steering=KNOB) == one


def test_sae_on_another_layer(inside: Inside) -> None:
    inside.run(detach(inside.state, "tiny"))
    attached = inside.run(attach(inside.state, SaeSpec(id="tiny", layer=2)))
    assert attached.facts.hook_point == "blocks.2.hook_resid_post"
    assert attached.facts.layer == 2 != HOOK_LAYER


def refusals() -> list[tuple[SaeSpec, type[MillmError], str]]:
    return [
        (SaeSpec(id="gpt2-sae", hook_point="blocks.2.hook_resid_post"), SaeMismatch, f"{STAND_IN_WIDTH}.*{WIDTH}"),
        (SaeSpec(id="tiny"), SaeMismatch, "already attached"),
        (SaeSpec(id="same-place"), SaeMismatch, "already has SAE 'tiny'"),
        (SaeSpec(id="second", layer=9), SaeMismatch, "layers 0 to 3"),
        (SaeSpec(id="second", hook_point="blocks.1.hook_nowhere"), SaeMismatch, "hook_nowhere"),
        (SaeSpec(id="of-gpt2"), SaeModelMismatch, "gpt2-small.*tiny-llama.*allow_model_mismatch"),
        (SaeSpec(id="nobody"), SaeNotFound, "nobody"),
        (SaeSpec(id="second", replaces="nobody"), SaeNotFound, "nobody"),
    ]


def test_mismatching_sae_is_rejected_without_changes(inside: Inside, tmp_path: Path) -> None:
    write_sae(
        tmp_path / "of-gpt2", layer=2, metadata={"model_name": "gpt2-small", "hook_name": "blocks.2.hook_resid_post"}
    )
    inside.state.hub.library.import_sae(tmp_path / "of-gpt2")
    make_active(inside)
    before, steered = situation(inside), text(inside)
    for wanted, error, message in refusals():
        with pytest.raises(error, match=message):
            inside.run(attach(inside.state, wanted))
        assert situation(inside) == before, wanted
    assert text(inside) == steered
    allowed = inside.run(attach(inside.state, SaeSpec(id="of-gpt2", allow_model_mismatch=True)))
    assert "gpt2-small" in allowed.facts.warnings[0]


@pytest.mark.parametrize(("kind", "error"), [("oom", InsufficientMemory), ("error", EngineFailed)])
def test_engine_failure_during_attach_changes_nothing(inside: Inside, kind: Any, error: type[MillmError]) -> None:
    make_active(inside)
    before, steered = situation(inside), text(inside)
    inside.run(inside.state.engine.inject(InjectFault(id="fault", point="attach", kind=kind)))
    with pytest.raises(error):
        inside.run(attach(inside.state, SaeSpec(id="second")))
    assert situation(inside) == before
    assert text(inside) == steered


def test_sae_is_replaced_in_one_step(inside: Inside) -> None:
    before = text(inside, steering=KNOB)
    inside.run(attach(inside.state, SaeSpec(id="same-place", replaces="tiny")))
    assert set(inside.state.saes) == {"same-place"}
    assert text(inside, steering=KNOB) != before
    inside.run(attach(inside.state, SaeSpec(id="tiny", replaces="same-place")))
    assert text(inside, steering=KNOB) == before


def test_running_answer_still_uses_a_detached_sae(inside: Inside) -> None:
    """The detached SAE steers it to its last token, while another of the same name is attached."""
    alone = text(inside, steering=KNOB, max_tokens=150)
    with streaming(inside, steering=KNOB, max_tokens=150) as stream:
        inside.run(detach(inside.state, "tiny"))
        inside.run(attach(inside.state, SaeSpec(id="same-place")))
        other = text(inside, steering=KNOB)
        inside.run(attach(inside.state, SaeSpec(id="tiny", replaces="same-place")))
        again = text(inside, steering=KNOB)
    assert (stream.text, stream.error) == (alone, None)
    assert stream.receipt is not None
    assert stream.receipt["tokens_steered"] > 150
    assert alone.startswith(again)
    assert other != again


def test_followers_continue_with_the_base_model_after_detach(inside: Inside) -> None:
    make_active(inside)
    with streaming(inside, max_tokens=150) as stream:
        inside.run(detach(inside.state, "tiny"))
        assert inside.state.active is None
    assert stream.error is None
    assert stream.receipt is not None
    assert 0 < stream.receipt["tokens_steered"] < 150


def test_active_steering_rebinds_to_a_reattached_sae(inside: Inside) -> None:
    """For example after it was detached for lack of memory."""
    make_active(inside)
    steered = text(inside)
    inside.call(inside.state.engine._degrade, "for a test")
    inside.run(inside.state.engine.detach("tiny"))
    assert text(inside) != steered
    inside.run(attach(inside.state, TINY))
    assert text(inside) == steered


def test_attach_without_a_model_is_rejected(inside: Inside) -> None:
    inside.run(unload(inside.state))
    with pytest.raises(ModelNotLoaded):
        inside.run(attach(inside.state, TINY))
    inside.run(load(inside.state, ModelSpec(id="tiny-llama")))


def test_detach_of_an_unattached_sae_is_rejected(inside: Inside) -> None:
    with pytest.raises(SaeNotFound, match="there are: tiny"):
        inside.run(detach(inside.state, "nobody"))
