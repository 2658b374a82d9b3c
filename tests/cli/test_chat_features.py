"""The syntax of `/steer`."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.cli.chat import MODES, UNITS, FeatureSettings, describe_features, merge_features, parse_features
from millm.errors import InvalidSteering
from millm.sae.steering import FeatureSetting

STRENGTHS = st.floats(allow_nan=False, allow_infinity=False, width=64).map(lambda strength: strength + 0.0)
SAES = st.none() | st.text(string.ascii_lowercase, min_size=1)
ACTIVE = st.builds(
    FeatureSetting,
    index=st.integers(0, 10**6),
    strength=STRENGTHS,
    mode=st.sampled_from([mode for mode in MODES if mode != "ablate"]),
    unit=st.sampled_from(UNITS),
    sae=SAES,
)
ABLATED = st.builds(FeatureSetting, index=st.integers(0, 10**6), mode=st.just("ablate"), sae=SAES)


@given(st.lists(ACTIVE | ABLATED).map(tuple))
def test_described_features_parse_to_the_same(features: FeatureSettings) -> None:
    assert parse_features(describe_features(features)) == features


@pytest.mark.parametrize(
    ("typed", "described"),
    [
        ("11 80", "11 +80"),
        ("11=80", "11 +80"),
        ("11 -80 12 .5", "11 -80, 12 +0.5"),
        ("11 80 clamp", "11 80 clamp"),
        ("11 0.5 norm 12 3", "11 +0.5 norm, 12 +3"),
        ("11 2 max_act clamp", "11 2 clamp max_act"),
        ("11 ablate 12 3", "11 ablate, 12 +3"),
        ("11@deep 80", "11@deep +80"),
        ("11 80 add raw", "11 +80"),
    ],
)
def test_parsed_features(typed: str, described: str) -> None:
    assert describe_features(parse_features(typed)) == described


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("clamp 11", "'clamp'"),
        ("-3 80", "'-3'"),
        ("1.5 80", "'1.5'"),
        ("11", "how strongly"),
        ("11 clamp", "how strongly"),
        ("11 80 clmp", "'clmp'"),
        ("11 80 clamp scale", "exclude"),
        ("11 80 norm raw", "exclude"),
        ("11 nan", "'nan'"),
        ("11 inf", "'inf'"),
        ("² 3", "'²'"),
    ],
)
def test_invalid_features_are_rejected(typed: str, word: str) -> None:
    with pytest.raises(InvalidSteering, match=word.replace("²", "\N{SUPERSCRIPT TWO}")):
        parse_features(typed)


def test_merge_replaces_the_same_feature_of_the_same_sae() -> None:
    assert (
        describe_features(merge_features(parse_features("1 2 3 4"), parse_features("1 9 5 6 1@b 7")))
        == "1 +9, 3 +4, 5 +6, 1@b +7"
    )


def test_adding_zero_removes_a_feature() -> None:
    assert describe_features(merge_features(parse_features("1 2 3 4"), parse_features("1 0"))) == "3 +4"
    assert describe_features(merge_features(parse_features("1 2"), parse_features("1 0 clamp"))) == "1 0 clamp"
