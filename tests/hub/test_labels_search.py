"""Label search: every word, by rank, and fast enough for each keystroke."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.hub.labels import Label, LabelIndex

SEA = {
    1: "the sea", 2: "sea", 3: "sea shells and the sea", 4: "nausea", 5: "Ships at SEA", 6: "law", 7: "",
    12: "words of law", 30: "rule 12", 99: "naïve Übermut",
}  # fmt: skip


@pytest.fixture(scope="module")
def index() -> LabelIndex:
    return LabelIndex.from_labels(Label(number, text) for number, text in SEA.items())


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("sea", [2, 1, 5, 3, 4]),
        ("SEA!", [2, 1, 5, 3, 4]),
        ("the sea", [1, 3]),
        ("sea the", [1, 3]),
        ("sea sh", [5, 3]),
        ("law sea", []),
        ("12", [12, 30]),
        ("7", [7]),
        ("30", [30]),
        ("8", []),
        ("ubermut", []),
        ("übermut NAÏVE", [99]),
        ("ﬆ", []),
        ("%", []),
        ("", [1, 2, 3, 4, 5, 6, 12, 30, 99]),
        ("  ", [1, 2, 3, 4, 5, 6, 12, 30, 99]),
    ],
)
def test_results_are_ranked(index: LabelIndex, text: str, matches: list[int]) -> None:
    assert [one.label.index for one in index.search(text)] == matches


@given(st.text(max_size=30))
def test_any_query_is_answered(text: str) -> None:
    matches = LabelIndex.from_labels([Label(3, text), Label(4, "another")]).search(text)
    if any(character.isalnum() for character in text):
        assert matches[0].label.index == 3 or text.strip() in ("4", "another")


def test_sixteen_thousand_labels_are_searched_in_time() -> None:
    """Measured in processor time, which other work on the machine does not change."""
    drawn = random.Random(0)
    vocabulary = [f"word{number}" for number in range(3000)]
    labels = [Label(number, " ".join(drawn.choices(vocabulary, k=8))) for number in range(16_384)]
    index = LabelIndex.from_labels(labels)

    def seconds(text: str) -> float:
        start = time.process_time()
        index.search(text)
        return time.process_time() - start

    for text in ("word12", "word1 word2", "nothing", "15"):
        assert min(seconds(text) for _ in range(3)) < 0.15
    expected = {
        number for number, label in enumerate(labels) if all(word in label.label for word in ("word1", "word2"))
    }
    assert {one.label.index for one in index.search("word1 word2")} == expected
