"""The JSON schema of profiles and the pydantic model accept the same documents."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

import millm.demo
from millm.profiles.schema import Profile
from tools.make_docs import profile_schema

SCHEMA = jsonschema_rs.validator_for(json.loads(profile_schema()))
DEMO = sorted((Path(millm.demo.__file__).parent / "profiles").glob("*.json"))
WHOLE: dict[str, Any] = json.loads((Path(__file__).parent / "shapes" / "millm-v1.json").read_bytes())

WRONG: dict[str, tuple[Any, ...]] = {
    "version": ("2", 1, None),
    "name": ("", 7, None),
    "description": (7, "x" * 2001, None),
    "model": (7, {}, {"repo_id": ""}, {"repo_id": "x", "more": 1}),
    "saes": ({}, [{"layer": -1}], [{"layer": 1.5}], [{"sha256": "AB"}], [{"width": 0}], [{"reference_norm": 0}],
             [{}] * 33),
    "features": ({}, [{}], [{"index": -1}], [{"index": 2**31}], [{"index": "3"}], [{"index": 3, "strength": "1"}],
                 [{"index": 3, "unit": "cm"}], [{"index": 3, "mode": "push"}], [{"index": 3, "max_act": 0}]),
    "positions": ("none", 1),
    "skip": ("all", 1),
    "skip_constrained": ("yes", None),
    "reference_norm": (0, -1, "1"),
    "watch": ([{}], [{"index": -1}], [{"index": 1}] * 129),
    "example_prompts": ([7], ["x" * 4001], ["x"] * 51),
    "tags": ([7], ["x" * 65], ["x"] * 51),
    "provenance": ({}, {"source": 7}, {"source": "x", "url": "x" * 2001}),
    "another": (1,),
}  # fmt: skip


@pytest.mark.parametrize("path", DEMO, ids=lambda path: path.stem)
def test_demo_profiles_are_valid(path: Path) -> None:
    SCHEMA.validate(json.loads(path.read_bytes()))


def test_a_profile_with_every_field_is_valid() -> None:
    assert set(WHOLE) == set(Profile.model_fields) - {"skip_constrained"}
    SCHEMA.validate(WHOLE)
    Profile.model_validate(WHOLE)


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_schema_and_model_reject_the_same(field: str, value: Any) -> None:
    document = {**WHOLE, field: value}
    assert not SCHEMA.is_valid(document)
    with pytest.raises(ValidationError):
        Profile.model_validate(document)


def test_profile_without_name_is_invalid() -> None:
    document = {key: value for key, value in WHOLE.items() if key != "name"}
    assert not SCHEMA.is_valid(document)
    with pytest.raises(ValidationError):
        Profile.model_validate(document)
