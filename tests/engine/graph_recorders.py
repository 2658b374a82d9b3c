"""A recorder for a CPU that is as strict as CUDA graphs: it replays operations on the same memory, and no Python.

Values from the host or from newly allocated tensors are therefore as stale in a replay as they would be on a GPU.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HOST_READS = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal"}
"""Operations that copy a result to the host."""


class ReplayRecorder:
    """Counts recordings and replays over all instances."""

    recorded = 0
    replayed = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Raises RuntimeError as CUDA does."""
        work()
        with _OperationLog() as tape:
            work()
        ReplayRecorder.recorded += 1
        return tape.play


class FailingRecorder:
    """Records `works` times, then fails."""

    works = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if FailingRecorder.works <= 0:
            work()
            raise RuntimeError("operation not permitted when stream is capturing")
        FailingRecorder.works -= 1
        return ReplayRecorder().record(work)


class IdleRecorder:
    """Its replay does nothing."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        return lambda: None


class _OperationLog(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, Any, Any, list[tuple[int, Tensor]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in HOST_READS:
            raise RuntimeError(f"the host waits for {func}")
        result = func(*args, **(kwargs or {}))
        known = {_memory(tensor) for tensor in _tensors((args, kwargs))}
        fresh = [(n, tensor) for n, tensor in enumerate(_tensors(result)) if _memory(tensor) not in known]
        self._operations.append((func, args, kwargs or {}, fresh))
        return result

    def play(self) -> None:
        ReplayRecorder.replayed += 1
        for func, args, kwargs, fresh in self._operations:
            results = _tensors(func(*args, **kwargs))
            for place, tensor in fresh:
                tensor.copy_(results[place])


def _tensors(found: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
