"""Decoding passes recorded once and replayed: Python and the driver are then asked once per pass, not per operation.

A recording is good for one number of rows, one number of columns and one extent of what each tap does; everything
else is numbers in tensors that stay where they are. What cannot be recorded is run as it is, and nobody notices but
the clock. Knows nothing about requests.

What records a piece of device work and does it again: CUDA graphs, or whatever a test puts in their place.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.kv_cache import CacheWindow, SlotCache
from millm.sae.hook_step import (
    HookOutput,
    HookStep,
    HookStepShape,
    blank_step,
    fill_step,
    hook_step_shape,
    is_capturable,
)
from millm.sae.steering_hook import SteeringHook

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


log = structlog.get_logger()
GRAPH_ROW_COUNTS = (1, 2, 4, 8)
"""Rows of a recording; above these, multiples of the last."""
MIN_GRAPH_COLUMNS = 256
"""Columns of a recording: powers of two, from here."""
DecodeForward = Callable[[Tensor, CacheWindow], Tensor]
"""tokens `[B, 1]` and where they are → logits of each `[B, V]`."""


@dataclass(frozen=True)
class GraphShape:
    """What is baked into a recording."""

    rows: int
    columns: int
    hooks: tuple[tuple[SteeringHook, HookStepShape], ...]
    """Those that do anything."""


class DecodeStep:
    """One token for each of the cache's first rows; called, it computes from its tensors and from nothing else."""

    def __init__(self, shape: GraphShape, forward: DecodeForward, cache: SlotCache, device: torch.device) -> None:
        self._forward = forward
        self._scratch_column = cache.length
        self._inputs = torch.zeros(3, shape.rows, 1, dtype=torch.long, device=device)
        self._tokens, positions, places = self._inputs
        self._window = CacheWindow(0, shape.rows, shape.columns, positions, None, places)
        self._steps = {tap: blank_step(extent, shape.rows, device) for tap, extent in shape.hooks}
        self.logits = torch.empty(0)  # [B, V]
        self.outputs: dict[SteeringHook, HookOutput] = {}

    def fill(self, tokens: Sequence[int], positions: Sequence[int], steps: Mapping[SteeringHook, HookStep]) -> None:
        """The numbers of the next pass. Rows that stand for nobody write where nobody reads."""
        idle = self._inputs.shape[1] - len(tokens)
        zeros, nowhere = [0] * idle, [self._scratch_column] * idle
        numbers = torch.tensor([[*tokens, *zeros], [*positions, *zeros], [*positions, *nowhere]])
        self._inputs.copy_(numbers[..., None])
        for tap, step in self._steps.items():
            fill_step(step, steps[tap])

    def __call__(self) -> None:
        with ExitStack() as swapped:
            for tap, step in self._steps.items():
                swapped.enter_context(tap.override_step(step))
            self.logits = self._forward(self._tokens, self._window)
            self.outputs = {tap: tap.output for tap in self._steps}


class GraphRunner:
    def __init__(
        self,
        forward: DecodeForward,
        cache: SlotCache,
        active_hooks: Callable[[], Iterable[SteeringHook]],
        new_recorder: Callable[[], GraphRecorder],
        device: torch.device,
    ) -> None:
        """`taps`: those that are attached, prepared for the pass that `run` is asked for."""
        self._forward = forward
        self._cache = cache
        self._active_hooks = active_hooks
        self._new_recorder = new_recorder
        self._device = device
        self.failure: str | None = None
        """Why nothing is recorded any more."""
        self.drop()

    def drop(self) -> None:
        """Forget every recording, and give their memory back."""
        self._recorded: dict[GraphShape, tuple[DecodeStep, Callable[[], None]]] = {}
        self._recorder = self._new_recorder()
        self._allocation_version = self._cache.allocation_version

    def run(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor | None:
        """One token for each of the cache's first rows → logits `[rows, V]`, good until the next call.

        None: this pass has to be run as it is. The taps' outputs are as after a forward pass.
        """
        steps = {tap: tap.step for tap in self._active_hooks() if tap.step is not None}
        if self.failure is not None or not all(is_capturable(step) for step in steps.values()):
            return None
        if self._allocation_version != self._cache.allocation_version:
            self.drop()
        shape = self._shape(len(tokens), max(positions) + 1, steps)
        step, replay = self._recorded.get(shape) or (DecodeStep(shape, self._forward, self._cache, self._device), None)
        step.fill(tokens, positions, steps)
        replay = replay or self._record(shape, step)
        if replay is None:
            return None
        replay()
        for tap, output in step.outputs.items():
            tap.output = output
        return step.logits[: len(tokens)]

    def _shape(self, rows: int, columns: int, steps: Mapping[SteeringHook, HookStep]) -> GraphShape:
        return GraphShape(
            rows=min(_round_up_rows(rows), self._cache.rows),
            columns=min(max(MIN_GRAPH_COLUMNS, 1 << (columns - 1).bit_length()), self._cache.length),
            hooks=tuple((tap, hook_step_shape(step)) for tap, step in steps.items()),
        )

    def _record(self, shape: GraphShape, step: DecodeStep) -> Callable[[], None] | None:
        try:
            replay = self._recorder.record(step)
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            self.failure = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            log.warning("engine.graphs_off", rows=shape.rows, columns=shape.columns, reason=self.failure)
            self.drop()
            return None
        self._recorded[shape] = step, replay
        return replay


def _round_up_rows(count: int) -> int:
    return next(
        (rows for rows in GRAPH_ROW_COUNTS if rows >= count), -(-count // GRAPH_ROW_COUNTS[-1]) * GRAPH_ROW_COUNTS[-1]
    )


@contextmanager
def recordable_experts(model: PreTrainedModel) -> Iterator[None]:
    """Mixtures of experts as `generate` decodes them on a GPU: all on the device, no counts read by the host."""
    before = model.get_experts_implementation()
    model.set_experts_implementation({part: _recordable_implementation(how) for part, how in before.items()})
    try:
        yield
    finally:
        model.set_experts_implementation(before)


def _recordable_implementation(experts: str | None) -> str | None:
    return "batched_mm" if experts in ("eager", "grouped_mm") else experts
