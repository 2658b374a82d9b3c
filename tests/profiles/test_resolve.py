"""Binding a profile's SAE references to attached SAEs, and the errors where none matches."""

import json
from typing import Any

import pytest

from millm.engine.messages import SaeFacts
from millm.errors import InvalidSteering
from millm.loaded import AttachedSae
from millm.profiles.resolve import bind_profile, reference_to_attached, watched_features
from millm.profiles.schema import Profile

SCOPE = "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
SHA = "ab" * 32


def attached(name: str, **changes: Any) -> AttachedSae:
    facts: dict[str, Any] = {
        "sae": name, "architecture": "jumprelu", "layer": 12, "hook_point": "blocks.12.hook_resid_post",
        "features": 16384, "steerable": True, "exclude_special_tokens": False, "residual_norm": 100.0,
        "variance_explained": None, "l0": 80.0, "warnings": (), "sha256": SHA,
    }  # fmt: skip
    return AttachedSae(SaeFacts(**{**facts, **changes}), {})


def profile(*saes: dict[str, Any], features: Any = ({"index": 1, "strength": 5},), **more: Any) -> Profile:
    return Profile.model_validate({"name": "p", "saes": saes, "features": features, **more})


def bound(saes: dict[str, AttachedSae], of: Profile) -> list[tuple[str | None, int, float, str]]:
    return [(one.sae, one.index, one.strength, one.unit) for one in bind_profile(saes, of).features]


ONE = {SCOPE: attached(SCOPE)}
LOCAL = {"mine": attached("mine")}


@pytest.mark.parametrize(
    ("saes", "reference"),
    [
        (ONE, {"repo_id": "google/gemma-scope-2b-pt-res", "layer": 12}),
        (ONE, {"repo_id": "google/gemma-scope-2b-pt-res", "path": "layer_12/width_16k/average_l0_82"}),
        (ONE, {"repo_id": "google/gemma-scope-2b-pt-res", "path": "layer_12/width_16k/average_l0_82/params.npz"}),
        (ONE, {"name": "anything", "sha256": SHA}),
        (ONE, {"name": SCOPE}),
        (ONE, {"width": 16384, "hook_point": "blocks.12.hook_resid_post"}),
        (LOCAL, {"name": "mine", "width": 16384}),
        (LOCAL, {"name": "theirs", "repo_id": "a/b", "path": "c", "sha256": SHA}),
    ],
)
def test_matching_references_bind(saes: dict[str, AttachedSae], reference: dict[str, Any]) -> None:
    (name,) = saes
    assert bound(saes, profile(reference)) == [(name, 1, 5.0, "raw")]


@pytest.mark.parametrize(
    ("saes", "reference", "why"),
    [
        (ONE, {"repo_id": "google/gemma-scope-2b-pt-res", "layer": 20}, "has layer 12, not 20"),
        (ONE, {"repo_id": "google/gemma-scope-2b-pt-res", "path": "layer_12/width_16k/average_l0_22"}, "another SAE"),
        (ONE, {"repo_id": "google/gemma-scope-9b-pt-res", "layer": 12}, "another SAE"),
        (ONE, {"name": SCOPE, "width": 65536}, "has width 16384, not 65536"),
        (ONE, {"name": SCOPE, "sha256": "cd" * 32}, "has other weights"),
        (ONE, {"name": SCOPE, "hook_point": "blocks.12.hook_mlp_out"}, "has hook point blocks.12.hook_resid_post"),
        (LOCAL, {"repo_id": "a/b", "layer": 12}, "another SAE"),
        (LOCAL, {"name": "theirs"}, "another SAE"),
        ({}, {"name": "theirs"}, "no SAE is"),
        ({"a": attached("a"), "b": attached("b")}, {"width": 16384}, "may be any of a, b"),
    ],
)
def test_mismatch_is_named_in_the_error(saes: dict[str, AttachedSae], reference: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidSteering, match=why):
        bind_profile(saes, profile(reference))


def test_several_saes_convert_norms() -> None:
    saes = {"a": attached("a", layer=1), "b": attached("b", layer=2)}
    features = [
        {"index": 1, "strength": 0.5, "unit": "norm", "sae": "first"},
        {"index": 2, "strength": 0.5, "unit": "norm", "sae": "second"},
        {"index": 3, "strength": 7, "sae": "second"},
    ]
    references = [{"name": "first", "layer": 1, "sha256": SHA, "reference_norm": 10.0},
                  {"name": "second", "layer": 2, "sha256": SHA, "reference_norm": 40.0}]  # fmt: skip
    assert bound(saes, profile(*references, features=features)) == [
        ("a", 1, 5.0, "raw"), ("b", 2, 20.0, "raw"), ("b", 3, 7.0, "raw"),
    ]  # fmt: skip
    alike = [{**reference, "reference_norm": 10.0} for reference in references]
    made = bind_profile(saes, profile(*alike, features=features))
    assert made.reference_norm == 10.0
    assert [one.unit for one in made.features] == ["norm", "norm", "raw"]
    watch = [{"index": 8, "sae": "second"}, {"index": 9, "sae": "second"}]
    assert watched_features(saes, profile(*references, features=features, watch=watch)) == {"b": (8, 9)}


def test_saved_reference_binds_only_its_sae() -> None:
    saes = {SCOPE: attached(SCOPE), "mine": attached("mine", sha256="cd" * 32, layer=3)}
    for name, sae in saes.items():
        reference = json.loads(reference_to_attached(sae).model_dump_json())
        features = [{"index": 1, "strength": 5, "sae": name}]
        assert bound(saes, profile(reference, features=features))[0][0] == name
    repo = reference_to_attached(saes[SCOPE])
    assert (repo.repo_id, repo.path) == ("google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82")


@pytest.mark.parametrize(
    "broken",
    [
        {"saes": [{"name": "a"}, {"name": "a"}]},
        {"saes": [{"name": "a"}, {}]},
        {"saes": [{"name": "a"}, {"name": "b"}]},
        {"saes": [{"name": "a"}], "features": [{"index": 1, "sae": "b"}]},
        {"saes": [{"name": "a", "sha256": "short"}]},
        {"watch": [{"index": -1}]},
        {"model": {"repo_id": ""}},
    ],
)
def test_contradictory_profiles_are_rejected(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Profile.model_validate({"name": "p", "features": [{"index": 1}], **broken})
