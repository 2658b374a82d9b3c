"""Features found by the words of their labels: every word, the best first, and soon enough to type along."""

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
    ("text", "found"),
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
def test_the_best_come_first(index: LabelIndex, text: str, found: list[int]) -> None:
    assert [one.label.index for one in index.search(text)] == found


@given(st.text(max_size=30))
def test_whatever_is_typed_is_answered(text: str) -> None:
    found = LabelIndex.from_labels([Label(3, text), Label(4, "another")]).search(text)
    if any(character.isalnum() for character in text):
        assert found[0].label.index == 3 or text.strip() in ("4", "another")


def test_sixteen_thousand_labels_are_searched_while_somebody_types() -> None:
    """In seconds of processor time, on however slow a machine: those on the clock depend on what else it does."""
    drawn = random.Random(0)
    vocabulary = [f"word{number}" for number in range(3000)]
    labels = [Label(number, " ".join(drawn.choices(vocabulary, k=8))) for number in range(16_384)]
    index = LabelIndex.from_labels(labels)

    def seconds(text: str) -> float:
        begun = time.process_time()
        index.search(text)
        return time.process_time() - begun

    for text in ("word12", "word1 word2", "nothing", "15"):
        assert min(seconds(text) for _ in range(3)) < 0.15
    told = {number for number, label in enumerate(labels) if all(word in label.label for word in ("word1", "word2"))}
    assert {one.label.index for one in index.search("word1 word2")} == told
