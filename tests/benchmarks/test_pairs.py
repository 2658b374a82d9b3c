"""Blocks of paired runs: as many as the time allows, and none lost for a bad one."""

from collections.abc import Callable
from itertools import count

import pytest

from benchmarks.pairs import FEWEST, blocks
from millm.errors import Unavailable


def test_as_many_as_asked_for_while_there_is_time() -> None:
    numbers = count()
    done = blocks({"a": lambda: next(numbers), "b": lambda: next(numbers)}, 5, 60)
    assert done[0] == {"a": (0, 3), "b": (1, 2)}
    assert done[4] == {"a": (16, 19), "b": (17, 18)}
    assert len(done) == 5


@pytest.mark.parametrize(("most", "expected"), [(10, FEWEST), (1, 1)])
def test_enough_for_an_interval_when_the_time_is_up(most: int, expected: int) -> None:
    assert len(blocks({"a": lambda: 1}, most, 0)) == expected


def failing_at(*numbers: int) -> Callable[[], int]:
    """Counts, and fails where it is told to."""
    counter = count()

    def run() -> int:
        number = next(counter)
        if number in numbers:
            raise Unavailable("no answer")
        return number

    return run


def test_a_block_that_fails_is_made_again() -> None:
    assert blocks({"a": failing_at(2, 6)}, 3, 60) == [{"a": (0, 1)}, {"a": (3, 4)}, {"a": (7, 8)}]


def test_what_fails_as_often_as_asked_for_keeps_what_there_is() -> None:
    assert blocks({"a": failing_at(2, 3, 4)}, 3, 60) == [{"a": (0, 1)}]


def test_what_always_fails_says_why() -> None:
    with pytest.raises(Unavailable, match="3 blocks failed, the last with: no answer"):
        blocks({"a": failing_at(0, 1, 2)}, 3, 60)
