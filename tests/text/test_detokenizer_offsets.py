"""Offsets of tokens whose bytes are invalid or a partial character."""

import pytest

from millm.text.detokenizer import TokenOffsets


@pytest.mark.parametrize(
    ("tokens", "text", "offsets"),
    [
        ([b"a", b"bc", b"d"], "abcd", [0, 1, 3]),
        ([b"\xe2\x82", b"\xac", b"!"], "€!", [0, 0, 1]),
        ([b"\xe2", b"!"], "\ufffd!", [0, 1]),
        ([b"\xf0\x9f", b"!"], "\ufffd!", [0, 1]),
        ([b"\xed", b"\xa0", b"!"], "\ufffd\ufffd!", [0, 0, 2]),  # half a surrogate is waited for, and is two nothings
        ([b"\xff", b"!"], "\ufffd!", [0, 1]),
    ],
)
def test_offsets_are_the_positions_of_the_tokens_text(tokens: list[bytes], text: str, offsets: list[int]) -> None:
    assert b"".join(tokens).decode("utf-8", "replace") == text
    counter = TokenOffsets()
    assert [counter.next_offset(data) for data in tokens] == offsets
