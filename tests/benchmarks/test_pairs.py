"""Blocks of paired runs: as many as fit the time; failed ones are repeated."""

from collections.abc import Callable
from itertools import count

import pytest

from benchmarks.pairs import FEWEST, blocks
from millm.errors import Unavailable


def test_the_requested_number_of_blocks_within_the_time() -> None:
    numbers = count()
    done = blocks({"a": lambda: next(numbers), "b": lambda: next(numbers)}, 5, 60)
    assert done[0] == {"a": (0, 3), "b": (1, 2)}
    assert done[4] == {"a": (16, 19), "b": (17, 18)}
    assert len(done) == 5


@pytest.mark.parametrize(("most", "expected"), [(10, FEWEST), (1, 1)])
def test_a_minimum_of_blocks_after_the_time_limit(most: int, expected: int) -> None:
    assert len(blocks({"a": lambda: 1}, most, 0)) == expected


def failing_at(*numbers: int) -> Callable[[], int]:
    """A counter that fails at these calls."""
    counter = count()

    def run() -> int:
        number = next(counter)
        if number in numbers:
            raise Unavailable("no answer")
        return number

    return run


def test_a_failed_block_is_repeated() -> None:
    assert blocks({"a": failing_at(2, 6)}, 3, 60) == [{"a": (0, 1)}, {"a": (3, 4)}, {"a": (7, 8)}]


def test_results_before_too_many_failures_are_preserved() -> None:
    assert blocks({"a": failing_at(2, 3, 4)}, 3, 60) == [{"a": (0, 1)}]


def test_a_permanent_failure_is_reported() -> None:
    with pytest.raises(Unavailable, match="3 blocks failed, the last with: no answer"):
        blocks({"a": failing_at(0, 1, 2)}, 3, 60)
