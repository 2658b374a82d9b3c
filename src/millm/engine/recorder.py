"""What records a piece of device work and does it again: CUDA graphs, or whatever a test puts in their place."""

from collections.abc import Callable
from typing import Protocol

import torch

WARM_UP_PASSES = 2
"""Passes before the recorded one, in which libraries choose their kernels and allocate what they keep."""


class GraphRecorder(Protocol):
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run `work`, which may be run any number of times; → what does on the device what it did, and no Python.

        Raises RuntimeError where something in `work` cannot be recorded.
        """


class CudaGraphRecorder:
    """CUDA graphs out of one pool of memory: only one is replayed at a time, so they may share what lies between.

    `thread_local`: what other threads ask of CUDA meanwhile is none of a recording's business.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_PASSES):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            work()
        return graph.replay


GRAPH_RECORDERS: dict[str, Callable[[], GraphRecorder]] = {"cuda": CudaGraphRecorder}
"""By type of device."""
