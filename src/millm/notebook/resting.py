"""Models whose decoder runs for a measurement: meanwhile nothing is steered or heard."""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from torch import nn

_paused_models: WeakSet[nn.Module] = WeakSet()


@contextmanager
def pause_hooks(model: nn.Module) -> Iterator[None]:
    _paused_models.add(model)
    try:
        yield
    finally:
        _paused_models.discard(model)


def is_paused(model: nn.Module) -> bool:
    return model in _paused_models
