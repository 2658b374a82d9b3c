"""A stream equals the decoded text up to the earliest stop string, and never shows part of one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millm.text.detokenizer import Detokenizer, StopScanner
from millm.text.tokenizer import Tokenizer
from tests.text.sample_tokenizers import KINDS, TEXT

Ours = dict[str, Tokenizer]

any_ids = st.lists(st.integers(0, 520), max_size=30)
lines = st.lists(
    st.sampled_from([*TEXT, " ", "🦊", "👨‍👩‍👧", "ᚠᛇ", "你好", "\n", " the", "é", "\ufffd", "👋🏽"]), max_size=4
).map("".join)
stops = st.lists(st.text(" aehlot\né🙂你\ufffd", max_size=4), max_size=4)
kinds = st.sampled_from(sorted(KINDS))


def cut(text: str, stop: list[str]) -> str:
    """The definition: the text before the earliest start of any stop string."""
    return text[: min((text.find(word) for word in stop if word and word in text), default=len(text))]


def check_stream(tokenizer: Tokenizer, ids: list[int], stop: list[str]) -> None:
    detokenizer = Detokenizer(tokenizer, stop)
    expected = cut(tokenizer.decode(ids), stop)
    released = ""
    for id in ids:
        released += detokenizer.push(id)
        assert expected.startswith(released)
        assert detokenizer.text == released
    released += detokenizer.finish()
    assert released == detokenizer.text == expected
    assert detokenizer.stopped == (expected != tokenizer.decode(ids))
    if detokenizer.stopped:
        assert detokenizer.push(ids[0]) == detokenizer.finish() == ""


@given(kinds, any_ids, stops)
def test_any_ids_stream_as_the_decoded_text_up_to_the_stop(
    ours: Ours, kind: str, ids: list[int], stop: list[str]
) -> None:
    check_stream(ours[kind], ids, stop)


@given(kinds, lines, stops, st.data())
def test_encoded_text_streams_as_itself_up_to_the_stop(
    ours: Ours, kind: str, text: str, stop: list[str], data: st.DataObject
) -> None:
    if text:
        start = data.draw(st.integers(0, len(text) - 1))
        stop = [*stop, text[start : start + data.draw(st.integers(1, 12))]]
    check_stream(ours[kind], ours[kind].encode(text), stop)


@given(st.lists(st.text("abc", max_size=4), max_size=8), st.lists(st.text("abc", max_size=5), max_size=4))
@example(["ab", "c"], ["b", "abc"])
@example(["ab", "d"], ["b", "abc"])
def test_the_stop_does_not_depend_on_the_split(pieces: list[str], stop: list[str]) -> None:
    scanner = StopScanner(stop)
    shown = "".join(map(scanner.feed, pieces)) + scanner.finish()
    assert shown == cut("".join(pieces), stop)
    assert scanner.stopped == (shown != "".join(pieces))


def test_holds_back_only_what_may_become_a_stop_string() -> None:
    scanner = StopScanner(["\nUser:"])
    assert scanner.feed("Hello\nUs") == "Hello"
    assert scanner.feed("ually") == "\nUsually"
    assert scanner.feed(" fine\nUser") == " fine"
    assert not scanner.stopped
    assert scanner.feed(": and on") == ""
    assert scanner.stopped
    assert scanner.feed("more") == scanner.finish() == ""


def test_waits_for_an_earlier_stop_string_that_may_still_complete() -> None:
    for last, shown in (("c", ""), ("d", "a")):
        scanner = StopScanner(["b", "abc"])
        assert scanner.feed("ab") == ""
        assert scanner.feed(last) == shown
        assert scanner.stopped


@pytest.mark.parametrize("kind", ["smollm2", "gemma", "llama2"])
def test_a_character_is_released_when_complete(ours: Ours, kind: str) -> None:
    tokenizer = ours[kind]
    ids = tokenizer.encode("aᚠ")[-3:]
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(id) for id in ids] == ["", "", "ᚠ"]
    assert [detokenizer.push(id) for id in ids[:2]] == ["", ""]
    assert detokenizer.finish() == tokenizer.decode(ids[:2]) == "\ufffd"


def test_special_tokens_and_ids_without_a_token_yield_no_text(ours: Ours) -> None:
    detokenizer = Detokenizer(ours["smollm2"])
    ids = ours["smollm2"].encode("hello")
    assert [detokenizer.push(id) for id in (1, *ids, 2, 0, 99_999)] == [
        "",
        *map(ours["smollm2"].token_text, ids),
        "",
        "",
        "",
    ]


def test_only_the_leading_space_is_dropped(ours: Ours) -> None:
    tokenizer = ours["llama2"]
    hello = [id for id in tokenizer.encode("hello") if id not in tokenizer.special_ids]
    detokenizer = Detokenizer(tokenizer)
    assert "".join(map(detokenizer.push, hello + hello)) == "hello hello"


def test_a_continuation_has_its_leading_space(ours: Ours) -> None:
    tokenizer = ours["llama2"]
    hello = [id for id in tokenizer.encode("hello") if id not in tokenizer.special_ids]
    detokenizer = Detokenizer(tokenizer, is_continuation=True)
    assert "".join(map(detokenizer.push, hello)) == " hello"
