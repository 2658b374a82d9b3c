"""The character scanner agrees with Python's own parser about any text."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millm.text.json_stream import MAX_DEPTH, NotJson, scan_value, skip_space

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=4), inside, max_size=3),
    max_leaves=8,
)
almost = st.text('{}[]":,0123456789.eE+-\\u/nulltrefas \n\x01é', max_size=14)


def is_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def read(text: str) -> bool:
    """True if every character can stand where it does and the value is complete."""
    chars = iter(text.strip(" \t\n\r") + " ")
    steps = scan_value(next(chars))
    try:
        next(steps)
        for char in chars:
            steps.send(char)
    except NotJson:
        return False
    except StopIteration as end:
        return not (end.value or "").strip() and not "".join(chars).strip()
    return False


@given(values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_python_json_is_accepted(value: object, indent: object, ascii_only: bool) -> None:
    assert read(json.dumps(value, indent=indent, ensure_ascii=ascii_only))


@given(almost)
@example("-")
@example("01")
@example("1.")
@example("[1,]")
@example('{"a":1,}')
@example('"\\u12g4"')
@example("nul")
def test_any_text_is_judged_as_by_python(text: str) -> None:
    if text.strip(" \t\n\r"):
        assert read(text) == is_json(text)


@given(values, st.data())
def test_a_changed_character_is_judged_as_by_python(value: object, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=False)
    index = data.draw(st.integers(0, len(text) - 1))
    changed = text[:index] + data.draw(st.sampled_from('{}[]":,0e-\\ x')) + text[index + 1 :]
    if changed.strip(" \t\n\r"):
        assert read(changed) == is_json(changed)


def test_depth_is_bounded() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert not read("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_a_number_returns_the_character_after_it() -> None:
    steps = scan_value("1")
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(",")
    assert end.value.value == ","
    space = skip_space("x")
    with pytest.raises(StopIteration) as end:
        next(space)
    assert end.value.value == "x"
