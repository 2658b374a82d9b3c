"""Each shipped profile has a recorded effect, and the documentation shows the record."""

import json

import pytest

from millm.demo import bundle
from millm.experiments.run import repeated_trigram_share
from millm.profiles.store import read_profile
from tools.efficacy.figures import at, cliffs_delta, difference_interval
from tools.efficacy.measures import MEASURES, share_of_capitals
from tools.efficacy.measuring import MULTIPLES, Answer
from tools.efficacy.pages import CARD_HEAD, MEASUREMENTS, MODEL_CARD, pages

RECORD = json.loads(MEASUREMENTS.read_text("utf-8"))
PROFILES = [path.stem for path in bundle.profile_files()]


@pytest.mark.parametrize("name", PROFILES)
def test_effect_of_each_profile_is_recorded(name: str) -> None:
    """At the profile's own strengths, the 95 % interval of steered − base lies above zero."""
    record = RECORD["profiles"][name]
    profile = read_profile(bundle.PROFILES_FOLDER / f"{name}.json")
    own = at(record, 1.0)
    assert record["features"] == [feature.model_dump(exclude_none=True) for feature in profile.features]
    assert tuple(one["multiple"] for one in record["steered"]) == MULTIPLES
    count = len(RECORD["prompts"]) * len(RECORD["sampling"]["seeds"])
    assert len(RECORD["prompts"]) >= 20
    assert min(way["answers"] for way in (record["base"], record["asked"], *record["steered"])) >= 0.95 * count
    low, high = own["minus_base_95"]
    assert 0 < low < own["effect"] - record["base"]["effect"] < high
    assert own["cliffs_delta"] > 0


@pytest.mark.parametrize("name", PROFILES)
def test_distance_from_the_base_grows_with_strength(name: str) -> None:
    record = RECORD["profiles"][name]
    gentle, own = at(record, 0.25), at(record, 1.0)
    assert gentle["kl"] < own["kl"]
    assert gentle["effect"] < own["effect"]


def test_record_covers_shipped_profiles_only() -> None:
    assert sorted(RECORD["profiles"]) == PROFILES == sorted(MEASURES)


def test_pages_match_the_record() -> None:
    for path, text in pages(RECORD).items():
        assert path.read_text("utf-8") == text, f"{path.name}: run `python -m tools.efficacy --show`"
    assert CARD_HEAD.read_text("utf-8").rstrip() in MODEL_CARD.read_text("utf-8")


def test_measures_separate_examples() -> None:
    assert share_of_capitals("AB cd 12!") == 0.5
    assert MEASURES["excited"].metric("Yes! No. Why?") == pytest.approx(1 / 3)
    assert MEASURES["food"].metric("She cooked two dishes slowly") == pytest.approx(2 / 5)
    assert repeated_trigram_share("a b c a b c") == pytest.approx(1 / 4)
    assert repeated_trigram_share("a b") == 0


def test_statistics_match_their_definitions() -> None:
    assert cliffs_delta([1, 2], [0, 0]) == 1
    assert cliffs_delta([1, 2], [1, 2]) == 0
    assert cliffs_delta([0, 3], [1, 1]) == 0
    loud, quiet = ([_answer(prompt, text) for prompt in range(5)] for text in ("AB", "Ab"))
    assert difference_interval(share_of_capitals, loud, quiet) == (0.5, 0.5)
    mixed = [*loud[:3], *quiet[3:]]
    low, high = difference_interval(share_of_capitals, mixed, quiet)
    assert 0 <= low < 0.3 < high <= 0.5


def _answer(prompt: int, text: str) -> Answer:
    return Answer(profile="", multiple=0.0, asked=False, prompt=prompt, seed=1, text=text, nll=1.0, kl=0.0)
