"""Records decoding passes as CUDA graphs and replays them: one launch per pass instead of one per operation.

A graph fits one number of rows, one number of columns and one shape of each hook's step; all other inputs are values in
tensors at fixed addresses. Passes that cannot be recorded run eagerly.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.failures import first_line
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

log = structlog.get_logger()
WARM_UP_PASSES = 2  # Passes before the recorded one, in which libraries choose kernels and allocate buffers
GRAPH_ROW_COUNTS = (1, 2, 4, 8)  # Rows of a graph; above these, multiples of the last
MIN_GRAPH_COLUMNS = 256  # Columns of a graph: powers of two, from this one up
DecodeForward = Callable[[Tensor, CacheWindow], Tensor]  # (tokens `[B, 1]`, window) → logits `[B, V]`


class GraphRecorder(Protocol):
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run `work` one or more times; → replay of its device operations, without Python.

        Raises RuntimeError if an operation cannot be recorded.
        """


class CudaGraphRecorder:
    """CUDA graphs that share one memory pool, since only one is replayed at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        warm_up = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            for _ in range(WARM_UP_PASSES):
                work()
        torch.cuda.current_stream().wait_stream(warm_up)
        graph = torch.cuda.CUDAGraph()
        # thread_local: CUDA calls of other threads do not break the capture
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            work()
        return graph.replay


GRAPH_RECORDERS: dict[str, Callable[[], GraphRecorder]] = {"cuda": CudaGraphRecorder}  # By device type


@dataclass(frozen=True)
class GraphShape:
    """Properties that are fixed when a graph is recorded."""

    rows: int
    columns: int
    hooks: tuple[tuple[SteeringHook, HookStepShape], ...]  # Hooks with a step


class DecodeStep:
    """Decodes one token for each of the cache's first rows; reads nothing but its own tensors and the cache."""

    def __init__(self, shape: GraphShape, forward: DecodeForward, cache: SlotCache, device: torch.device) -> None:
        self._forward = forward
        self._scratch_column = cache.length
        self._inputs = torch.zeros(3, shape.rows, 1, dtype=torch.long, device=device)
        self._tokens, positions, write_columns = self._inputs
        self._window = CacheWindow(0, shape.rows, shape.columns, positions, None, write_columns)
        self._steps = {hook: blank_step(step_shape, shape.rows, device) for hook, step_shape in shape.hooks}
        self.logits = torch.empty(0)  # [B, V]
        self.outputs: dict[SteeringHook, HookOutput] = {}

    def fill(self, tokens: Sequence[int], positions: Sequence[int], steps: Mapping[SteeringHook, HookStep]) -> None:
        """Copy the next pass's inputs. Padding rows write to a scratch column that is never attended to."""
        padding = self._inputs.shape[1] - len(tokens)
        zeros, scratch = [0] * padding, [self._scratch_column] * padding
        inputs = torch.tensor([[*tokens, *zeros], [*positions, *zeros], [*positions, *scratch]])
        self._inputs.copy_(inputs[..., None])
        for hook, step in self._steps.items():
            fill_step(step, steps[hook])

    def __call__(self) -> None:
        with ExitStack() as overrides:
            for hook, step in self._steps.items():
                overrides.enter_context(hook.override_step(step))
            self.logits = self._forward(self._tokens, self._window)
            self.outputs = {hook: hook.output for hook in self._steps}


class GraphRunner:
    def __init__(
        self,
        forward: DecodeForward,
        cache: SlotCache,
        active_hooks: Callable[[], Iterable[SteeringHook]],
        new_recorder: Callable[[], GraphRecorder],
        device: torch.device,
    ) -> None:
        """`active_hooks`: prepared for the pass when `run` is called."""
        self._forward = forward
        self._cache = cache
        self._active_hooks = active_hooks
        self._new_recorder = new_recorder
        self._device = device
        self.failure: str | None = None  # Why recording was turned off
        self.drop()

    def drop(self) -> None:
        """Drop every graph and free its memory."""
        self._graphs: dict[GraphShape, tuple[DecodeStep, Callable[[], None]]] = {}
        self._recorder = self._new_recorder()
        self._allocation_version = self._cache.allocation_version

    def run(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor | None:
        """Logits `[rows, V]` of the cache's first rows, valid until the next call; None: the pass must run eagerly."""
        steps = {hook: hook.step for hook in self._active_hooks() if hook.step is not None}
        if self.failure is not None or not all(is_capturable(step) for step in steps.values()):
            return None
        if self._allocation_version != self._cache.allocation_version:
            self.drop()
        shape = self._shape(len(tokens), max(positions) + 1, steps)
        step, replay = self._graphs.get(shape) or (DecodeStep(shape, self._forward, self._cache, self._device), None)
        step.fill(tokens, positions, steps)
        replay = replay or self._record(shape, step)
        if replay is None:
            return None
        replay()
        for hook, output in step.outputs.items():
            hook.output = output
        return step.logits[: len(tokens)]

    def _shape(self, rows: int, columns: int, steps: Mapping[SteeringHook, HookStep]) -> GraphShape:
        multiple = -(-rows // GRAPH_ROW_COUNTS[-1]) * GRAPH_ROW_COUNTS[-1]  # rounded up
        return GraphShape(
            rows=min(next((count for count in GRAPH_ROW_COUNTS if count >= rows), multiple), self._cache.rows),
            columns=min(max(MIN_GRAPH_COLUMNS, 1 << (columns - 1).bit_length()), self._cache.length),
            hooks=tuple((hook, hook_step_shape(step)) for hook, step in steps.items()),
        )

    def _record(self, shape: GraphShape, step: DecodeStep) -> Callable[[], None] | None:
        try:
            replay = self._recorder.record(step)
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            self.failure = first_line(error)
            log.warning("engine.graphs_off", rows=shape.rows, columns=shape.columns, reason=self.failure)
            self.drop()
            return None
        self._graphs[shape] = step, replay
        return replay


@contextmanager
def recordable_experts(model: PreTrainedModel) -> Iterator[None]:
    """Mixtures of experts as `generate` decodes them on a GPU, without counts that the host reads."""
    before = model.get_experts_implementation()
    recordable = {
        part: "batched_mm" if implementation in ("eager", "grouped_mm") else implementation
        for part, implementation in before.items()
    }
    model.set_experts_implementation(recordable)
    try:
        yield
    finally:
        model.set_experts_implementation(before)
