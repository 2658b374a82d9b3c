"""Selection of a request's steering, and the errors of what cannot be applied."""

from pathlib import Path

import pytest

from millm.engine.messages import ModelFacts, SaeFacts
from millm.errors import InvalidProfile, InvalidSteering, MillmError, ModelNotFound, ModelNotLoaded, ProfileNotFound
from millm.lifecycle.selection import model_cards, resolve_active, resolve_watches, select
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.schema import ActivationsRequest, Profile, SteeringRequest
from millm.sae.steering import Coefficients, Steering, Watch
from millm.state import State
from millm.text.chat_template import ChatTemplate
from millm.text.tokenizer import Tokenizer
from tests.fixtures.bare import bare_state, take_in
from tests.fixtures.tiny import write_profiles

MODEL = ModelFacts(
    architecture="LlamaForCausalLM", layers=4, width=48, vocab_size=387, context_length=256, stop_ids=(2,),
    device="cpu", dtype="float32", parameters=1, runner="plain",
)  # fmt: skip


def sae(name: str, **changes: object) -> AttachedSae:
    facts = {
        "sae": name, "architecture": "jumprelu", "layer": 1, "hook_point": "blocks.1.hook_resid_post", "features": 96,
        "steerable": True, "exclude_special_tokens": False, "residual_norm": 10.0, "variance_explained": None,
        "l0": 3.0, "warnings": (), "sha256": "0",
    }  # fmt: skip
    return AttachedSae(SaeFacts(**{**facts, **changes}), max_acts={5: 8.0})  # type: ignore[arg-type]


@pytest.fixture
def state(tiny_model: Path, tmp_path: Path) -> State:
    tokenizer = Tokenizer.from_folder(tiny_model)
    write_profiles(tmp_path)
    model = LoadedModel("org/tiny", MODEL, tokenizer, ChatTemplate.from_folder(tiny_model, tokenizer))
    state = bare_state(max_queue=1)
    take_in(state, tmp_path)
    state.model, state.saes = model, {"tiny": sae("tiny")}
    return state


def steering(**fields: object) -> SteeringRequest:
    return SteeringRequest.model_validate(fields)


def resolved(state: State, request: SteeringRequest) -> Steering | None:
    return select(state, model="org/tiny", profile=None, steering=request, steering_given=True).steering


def coefficients(state: State, **feature: object) -> Coefficients:
    found = resolved(state, steering(features=[feature]))
    assert found is not None
    return found.by_sae[0].features[0]


def test_steering_precedence(state: State) -> None:
    """steering > profile > model:profile > active, and an explicit nothing is the base model."""
    state.active = resolve_active(state, profile="hold")
    one = steering(features=[{"index": 1, "strength": 2}])

    def selected(model: str, profile: str | None = None, given: object = "absent") -> tuple[str | None, int | None]:
        wanted = None if given == "absent" else given
        found = select(state, model=model, profile=profile, steering=wanted, steering_given=given != "absent")  # type: ignore[arg-type]
        return found.profile, found.steering.by_sae[0].features[0].index if found.steering else None

    assert selected("org/tiny") == ("hold", 7)
    assert selected("org/tiny:push") == ("push", 3)
    assert selected("org/tiny:push", "hold") == ("hold", 7)
    assert selected("org/tiny:push", "hold", one) == (None, 1)
    assert selected("org/tiny:push", "hold", None) == (None, None)
    assert selected("org/tiny:push", given=steering()) == (None, None)
    state.active = None
    assert selected("org/tiny") == (None, None)


def test_only_requests_without_steering_follow_active(state: State) -> None:
    def follows(model: str = "org/tiny", profile: str | None = None, *, given: bool = False) -> bool:
        return select(state, model=model, profile=profile, steering=None, steering_given=given).follows_active

    for current in (None, resolve_active(state, profile="hold")):
        state.active = current
        assert follows()
        assert not follows(given=True)
        assert not follows("org/tiny:push")
        assert not follows(profile="hold")


def test_activatable_steerings(state: State) -> None:
    one = steering(features=[{"index": 1, "strength": 2}])
    made = resolve_active(state, steering=one)
    assert made is not None
    named = steering(features=[{"index": 1, "strength": 2, "sae": "tiny"}])
    assert (made.profile, made.request, made.steering) == (None, named, resolved(state, one))
    assert resolve_active(state) is None
    assert resolve_active(state, steering=steering()) is None
    with pytest.raises(ProfileNotFound):
        resolve_active(state, profile="nope")
    with pytest.raises(InvalidSteering):
        resolve_active(state, steering=steering(features=[{"index": 96, "strength": 2}]))
    state.model = None
    with pytest.raises(ModelNotLoaded):
        resolve_active(state)


@pytest.mark.parametrize(
    ("model", "profile", "error"),
    [
        ("other", None, ModelNotFound),
        ("org/tiny:", None, ProfileNotFound),
        ("org/tiny:nope", None, ProfileNotFound),
        ("org/tiny", "nope", ProfileNotFound),
        ("other:push", None, ModelNotFound),
        ("", None, ModelNotFound),
    ],
)
def test_unknown_names_are_404(state: State, model: str, profile: str | None, error: type[MillmError]) -> None:
    with pytest.raises(error):
        select(state, model=model, profile=profile, steering=None, steering_given=False)


def test_strength_units(state: State) -> None:
    """One strength, told in three ways, is one coefficient."""
    assert coefficients(state, index=5, strength=4.0) == Coefficients(5, 4.0, 0.0)
    assert coefficients(state, index=5, strength=0.4, unit="norm") == Coefficients(5, 4.0, 0.0)
    assert coefficients(state, index=5, strength=0.5, unit="max_act") == Coefficients(5, 4.0, 0.0)
    assert coefficients(state, index=6, strength=2, unit="max_act", max_act=2.0) == Coefficients(6, 4.0, 0.0)
    exported = steering(features=[{"index": 5, "strength": 0.4, "unit": "norm"}], reference_norm=20.0)
    assert resolved(state, exported).by_sae[0].features == (Coefficients(5, 8.0, 0.0),)  # type: ignore[union-attr]


def test_fingerprint_identifies_the_effect(state: State) -> None:
    def fingerprint(**fields: object) -> str:
        found = resolved(state, steering(**fields))
        assert found is not None
        return found.fingerprint

    one, two = {"index": 1, "strength": 2}, {"index": 4, "strength": -1}
    assert fingerprint(features=[one, two]) == fingerprint(features=[two, one])
    assert fingerprint(features=[one]) != fingerprint(features=[{**one, "strength": 2.5}])
    assert fingerprint(features=[one]) != fingerprint(features=[one], positions="prompt")
    assert fingerprint(features=[one]) == fingerprint(features=[{**one, "strength": 0.2, "unit": "norm"}])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": [{"index": 96, "strength": 1}]}, r"feature 96 is not in 0\.\.95 of SAE 'tiny'"),
        ({"features": [{"index": 1, "strength": 1}, {"index": 1, "strength": 2}]}, "given twice"),
        ({"features": [{"index": 1, "strength": 1, "sae": "other"}]}, "no SAE named 'other'.*attached: tiny"),
        ({"features": [{"index": 1, "strength": 1, "unit": "max_act"}]}, "maximum activation"),
        ({"features": [{"index": 1, "strength": 2, "mode": "scale", "unit": "norm"}]}, "has no unit"),
        ({"features": [{"index": 1, "strength": 2e6}]}, "within"),
        ({"features": [{"index": 1, "strength": 1e308, "unit": "norm"}]}, "within"),
        ({"features": [{"index": 1, "mode": "ablate"}], "skip": "none"}, "skip 'none'"),
        ({"features": [{"index": i, "mode": "ablate"} for i in range(65)]}, "64 of them"),
    ],
)
def test_inapplicable_steering_is_rejected(state: State, fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSteering, match=message):
        resolved(state, steering(**fields))


def test_unsupported_sae_operations_are_rejected(state: State) -> None:
    state.saes = {"a": sae("a", steerable=False)}
    with pytest.raises(InvalidSteering, match="watched but not steered"):
        resolved(state, steering(features=[{"index": 1, "strength": 1}]))
    state.saes = {"a": sae("a"), "b": sae("b")}
    with pytest.raises(InvalidSteering, match="say which `sae`"):
        resolved(state, steering(features=[{"index": 1, "strength": 1}]))
    state.saes = {}
    with pytest.raises(InvalidSteering, match="attached: none"):
        resolved(state, steering(features=[{"index": 1, "strength": 1}]))


def test_special_tokens_are_skipped_for_saes_trained_without_them(state: State) -> None:
    """Only where activations are read and the request has no `skip`."""
    state.saes = {"tiny": sae("tiny", exclude_special_tokens=True)}

    def skip(**fields: object) -> str:
        found = resolved(state, steering(**fields))
        assert found is not None
        return found.skip

    assert skip(features=[{"index": 1, "strength": 1}]) == "bos"
    assert skip(features=[{"index": 1, "mode": "ablate"}]) == "special"
    assert skip(features=[{"index": 1, "mode": "ablate"}], skip="bos") == "bos"


def test_profile_of_another_model_is_rejected(state: State) -> None:
    """Another fine-tuning of the same model is accepted: features usually carry over."""
    for name, model in (("other", "google/gemma-2-2b"), ("tuned", "org/tiny-instruct")):
        document = {"name": name, "model": model, "features": [{"index": 1, "strength": 1}]}
        state.profiles.add(Profile.model_validate(document))
    with pytest.raises(InvalidSteering, match="made for google/gemma-2-2b, not for org/tiny"):
        select(state, model="org/tiny:other", profile=None, steering=None, steering_given=False)
    assert select(state, model="org/tiny:tuned", profile=None, steering=None, steering_given=False).steering
    assert "org/tiny:other" not in [card.id for card in model_cards(state)]


def test_watches_are_resolved(state: State) -> None:
    asked = ActivationsRequest(features=(1, 2), tokens="all")
    assert resolve_watches(state, asked) == (Watch(sae="tiny", features=(1, 2), tokens="all"),)
    for bad, message in (
        ({}, "name `features`"),
        ({"features": (96,)}, r"0\.\.95"),
        ({"top_k": 97}, "at most 96"),
        ({"features": (1,), "sample_every": 2}, "ask for a `top_k`"),
    ):
        with pytest.raises(InvalidSteering, match=message):
            resolve_watches(state, ActivationsRequest.model_validate(bad))


def test_top_k_sample_rate_of_request_or_attach(state: State) -> None:
    state.saes = {"wide": sae("wide", sample_every=7)}
    (measured,) = resolve_watches(state, ActivationsRequest(top_k=5))
    (chosen,) = resolve_watches(state, ActivationsRequest(top_k=5, sample_every=1))
    assert (measured.sample_every, chosen.sample_every) == (7, 1)


def test_model_list_has_applicable_profiles(state: State) -> None:
    assert [card.id for card in model_cards(state)] == ["org/tiny", "org/tiny:hold", "org/tiny:push"]
    state.saes = {}
    assert [card.id for card in model_cards(state)] == ["org/tiny"]
    state.model = None
    assert model_cards(state) == []
    with pytest.raises(ModelNotLoaded):
        select(state, model="org/tiny", profile=None, steering=None, steering_given=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JSON document"),
        (b"\xff\xfe", "not a JSON document"),
        (b"[]", "document"),
        (b'{"features": []}', "name"),
        (b'{"name": "has/slash"}', "name"),
        (b'{"name": "a\\u202eb"}', "name"),
        (b'{"name": "a", "feature": []}', "feature"),
        (b'{"name": "a", "features": [{"index": -1}]}', r"features\.0\.index"),
        (b'{"name": "a", "features": [{"index": "1"}]}', r"features\.0\.index"),
        (b'{"name": "a", "features": [{"index": 1, "strength": NaN}]}', r"features\.0\.strength"),
        (b'{"name": "a", "features": [{"index": 1, "strength": 1e999}]}', r"features\.0\.strength"),
        (b'{"name": "a", "features": [{"index": 1, "mode": "boost"}]}', r"features\.0\.mode"),
        (b'{"name": "a", "version": "2"}', "version"),
    ],
)
def test_invalid_profile_files_are_rejected_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(InvalidProfile, match=rf"^bad\.json: .*{message}"):
        bare_state().profiles.import_file(tmp_path / "bad.json")
