"""Models whose decoder runs for a measurement: meanwhile nothing is steered or heard."""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from torch import nn

_resting: WeakSet[nn.Module] = WeakSet()


@contextmanager
def resting(model: nn.Module) -> Iterator[None]:
    _resting.add(model)
    try:
        yield
    finally:
        _resting.discard(model)


def is_resting(model: nn.Module) -> bool:
    return model in _resting
