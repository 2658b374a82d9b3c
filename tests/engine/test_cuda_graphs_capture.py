"""No decoding pass reads a value from the device, which would prevent its capture as a CUDA graph.

The passes run on fake tensors, which raise when a value is read. Only a GPU can show whether CUDA's libraries allow
every kernel to be captured.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from transformers import PreTrainedModel

from millm.engine import kv_cache
from millm.engine.cuda_graphs import DecodeStep, GraphShape
from millm.engine.model_runner import SlotsRunner
from millm.sae import hooks
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.config import MAX_WATCHED_FEATURES
from millm.sae.formats import canonicalise
from millm.sae.hook_step import HookStepShape
from millm.sae.steering_hook import SteeringHook
from tests.engine import architectures
from tests.engine.test_cuda_graphs import recordable
from tests.engine.test_model_runner_architectures import nothing_steered
from tests.fixtures.tiny import write_sae

ROWS = 2
WATCHES, STEERS, BOTH = (
    HookStepShape(0, 32, steers=False, reads_both=False),
    HookStepShape(8, 0, steers=True, reads_both=False),
    HookStepShape(64, MAX_WATCHED_FEATURES, steers=True, reads_both=True),
)
"""A step that reads, adds and clamps."""


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> SteeringHook:
    folder = tmp_path_factory.mktemp("sae")
    source = write_sae(folder / "source", width=architectures.SIZE["hidden_size"], normalize_activations="layer_norm")
    return SteeringHook(SparseAutoencoder.open(canonicalise(source, folder / "canonical")), torch.device("cpu"))


def logits(
    model: PreTrainedModel, *hook_shapes: tuple[SteeringHook, HookStepShape], runner: SlotsRunner | None = None
) -> Tensor:
    """Run one step on fake tensors. Raises DataDependentOutputException."""
    runner = runner or SlotsRunner(model, ROWS, nothing_steered, kv_cache_bytes=1 << 30)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        step = DecodeStep(
            GraphShape(ROWS, 256, hook_shapes), runner._forward_for_graph, runner.cache, torch.device("cpu")
        )
        step()
        assert set(step.outputs) == {hook for hook, _ in hook_shapes}
        for hook, shape in hook_shapes:
            check(step.outputs[hook].ratio, (ROWS, 1) if shape.steers else None)
            check(step.outputs[hook].watched, (ROWS, 1, shape.watched_columns) if shape.watched_columns else None)
    return step.logits


def check(tensor: Tensor | None, shape: tuple[int, ...] | None) -> None:
    assert (None if tensor is None else tuple(tensor.shape)) == shape


def build(name: str, attention_name: str = kv_cache.GROUPED_QUERY_ATTENTION) -> PreTrainedModel:
    model = architectures.build(name)
    model.set_attn_implementation(attention_name)
    return model


@pytest.mark.parametrize("name", [name for name in architectures.BATCHED if recordable(name)])
def test_every_architecture_is_recordable(name: str, hook: SteeringHook) -> None:
    model = build(name)
    assert tuple(logits(model).shape) == (ROWS, 128)
    handle = hooks.resolve_hook_point(model, "blocks.1.hook_resid_post").register(hook)
    for shape in (WATCHES, STEERS, BOTH):
        assert tuple(logits(model, (hook, shape)).shape) == (ROWS, 128)
    handle.remove()


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma2"])
def test_models_own_attention_is_recordable(name: str) -> None:
    """Used if miLLM's attention gives other results."""
    assert tuple(logits(build(name, "eager")).shape) == (ROWS, 128)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_eager_experts_are_not_recordable(name: str) -> None:
    """Therefore recorded passes use `recordable_experts`."""
    model = build(name)
    runner = SlotsRunner(model, ROWS, nothing_steered, kv_cache_bytes=1 << 30)
    model.set_experts_implementation("eager")
    runner._forward_for_graph = runner._forward  # type: ignore[method-assign]
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        logits(model, runner=runner)


def reads_a_number(x: Tensor) -> Tensor | None:
    return x * 2 if x.sum().item() > 0 else None


def reads_a_condition(x: Tensor) -> Tensor | None:
    return x * 2 if (x > 0).any() else None


def selects_by_mask(x: Tensor) -> Tensor | None:
    return x + x[x > 0].mean()


@pytest.mark.parametrize("hook", [reads_a_number, reads_a_condition, selects_by_mask])
def test_pass_that_reads_from_the_device_is_detected(hook: Callable[[Tensor], Tensor | None]) -> None:
    model = build("llama")
    hooks.resolve_hook_point(model, "blocks.1.hook_resid_post").register(hook)
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        logits(model)
