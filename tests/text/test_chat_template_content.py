"""The text of a message's content."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.errors import InvalidRequest, UnsupportedParameter
from millm.text.chat_template import content_text


@given(st.text(), st.lists(st.integers(0, 20)))
def test_text_parts_are_joined(text: str, cuts: list[int]) -> None:
    borders = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    parts = [{"type": "text", "text": text[start:end]} for start, end in itertools.pairwise(borders)]
    assert content_text(parts) == content_text(text) == text


def test_missing_content_is_empty_text() -> None:
    assert content_text(None) == content_text([]) == ""


def test_a_refusal_in_the_history_is_text() -> None:
    assert content_text([{"type": "refusal", "refusal": "I would rather not."}]) == "I would rather not."


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_other_content_types_are_rejected_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedParameter, match=f"'{kind}' is not supported") as refusal:
        content_text([{"type": "text", "text": "Look:"}, {"type": kind, kind: {}}])
    assert refusal.value.param == "messages"


@pytest.mark.parametrize("part", [{"type": "text"}, {"type": "text", "text": 5}, {"type": "text", "text": None}])
def test_a_text_part_without_text_is_rejected(part: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="a part of type 'text' needs a string 'text'") as refusal:
        content_text([part])
    assert refusal.value.param == "messages"


@pytest.mark.parametrize("part", [{}, {"type": None}, {"type": ["text"]}])
def test_a_part_without_type_is_rejected(part: dict[str, object]) -> None:
    with pytest.raises(UnsupportedParameter, match="send parts of type 'text'"):
        content_text([part])
