"""A profile ships only with a recorded effect, and the record is of the profile that ships."""

import json

import pytest

from millm.demo import bundle
from millm.profiles.files import read_profile
from tools.measure_profiles import CARD_HEAD, MEASUREMENTS, MEASURES, MODEL_CARD, card, repetition, share_of_capitals

RECORD = json.loads(MEASUREMENTS.read_text("utf-8"))
PROFILES = [path.stem for path in bundle.profile_files()]


@pytest.mark.parametrize("name", PROFILES)
def test_its_effect_is_recorded(name: str) -> None:
    """20 prompts × 3 seeds each way; the 95 % interval of steered − base lies above zero."""
    record = RECORD["profiles"][name]
    profile = read_profile(bundle.PROFILES_FOLDER / f"{name}.json")
    assert record["features"] == [feature.model_dump(exclude_none=True) for feature in profile.features]
    assert len(RECORD["prompts"]) >= 20
    assert len(RECORD["sampling"]["seeds"]) >= 3
    assert min(record[way]["answers"] for way in ("base", "steered", "asked")) >= 59
    assert record["steered_minus_base_95"][0] > 0
    assert record["steered"]["effect"] > record["base"]["effect"]


def test_nothing_is_recorded_that_does_not_ship() -> None:
    assert sorted(RECORD["profiles"]) == PROFILES == sorted(MEASURES)


def test_the_card_is_made_from_the_record() -> None:
    assert MODEL_CARD.read_text("utf-8") == card(RECORD), "run `python tools/measure_profiles.py --card-only`"
    assert CARD_HEAD.read_text("utf-8").rstrip() in MODEL_CARD.read_text("utf-8")


def test_the_measures_measure() -> None:
    assert share_of_capitals("AB cd 12!") == 0.5
    assert MEASURES["excited"].metric("Yes! No. Why?") == pytest.approx(1 / 3)
    assert MEASURES["food"].metric("She cooked two dishes slowly") == pytest.approx(2 / 5)
    assert repetition("a b c a b c") == pytest.approx(1 / 4)
    assert repetition("a b") == 0
