"""Chooses a model's runner by a self-test at every load: batched if that gives the model's own logits, else plain.

Architectures differ in masks, positions and caches, and change with each release of transformers; so short sequences
run both ways, and the logits are compared.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine import kv_cache, out_of_memory
from millm.engine.cuda_graphs import GRAPH_RECORDERS
from millm.engine.failures import first_line
from millm.engine.messages import Generate, LoadModel
from millm.engine.model_runner import PlainRunner, Runner, SlotsRunner, SteerMaskFunction
from millm.engine.quantization import quantization_label
from millm.engine.scheduler import ScheduledRow, Scheduler, Sequence
from millm.engine.scoring import last_hidden_states
from millm.errors import InvalidModel
from millm.sae.steering_hook import SteeringHook

log = structlog.get_logger()
TEST_PROMPT_LENGTHS = (5, 21, 13)  # Different, so that every row has its own positions
TEST_CHUNK_TOKENS = 8
TEST_DECODE_STEPS = 2
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""Largest difference of a logit, relative to the largest logit: far above rounding, far below a wrong mask."""
QUANTIZED_NOISE = 2.0
"""A quantized model may differ by this multiple of its own noise: bitsandbytes' layers turn a rounding error into a
step of their grid."""
TEST_ERRORS = (TypeError, ValueError, IndexError, AttributeError, RuntimeError)
"""Raised by a model whose forward pass does not support the test."""


@dataclass(frozen=True)
class RunnerChoice:
    runner: Runner | None  # None: the model only embeds
    name: str
    reason: str  # Why the model did not get a faster runner; empty for the fastest

    def scheduler(self) -> Scheduler:
        runner = self.runner
        return Scheduler(runner.capacity, runner.prefill_chunk, runner.runs_alone) if runner else Scheduler(capacity=1)


class _LogitsDiffer(Exception): ...


def choose_runner(
    model: PreTrainedModel,
    command: LoadModel,
    steer_mask: SteerMaskFunction,
    active_hooks: Callable[[], Iterable[SteeringHook]] = tuple,
) -> RunnerChoice:
    """`active_hooks`: the registered hooks, called at each pass.

    Raises InvalidModel if the model does not run, or not with the requested runner.
    """
    if command.generates:
        choice = _choose_generating_runner(model, command, steer_mask, active_hooks)
    else:
        check_encoder(model)
        choice = RunnerChoice(None, "encoder", "it has no head that writes tokens")
    log.info("engine.runner", runner=choice.name, reason=choice.reason)
    return choice


def _choose_generating_runner(
    model: PreTrainedModel,
    command: LoadModel,
    steer_mask: SteerMaskFunction,
    active_hooks: Callable[[], Iterable[SteeringHook]],
) -> RunnerChoice:
    plain = PlainRunner(model)
    if command.runner == "plain":
        return RunnerChoice(plain, "plain", "`runner` is set to plain")
    if reason := _unsupported_reason(model):
        return _fall_back_to_plain(command, plain, reason)
    try:
        with torch.inference_mode():
            expected = [_reference_logits(model, ids) for ids in _prompts(model)]
            note = _try_grouped_query_attention(model, expected) if command.attention == "auto" else ""
            test_runner = _new_slots_runner(model, len(TEST_PROMPT_LENGTHS), steer_mask, command)
            _compare(_slots_runner_logits(test_runner, model), expected, model, "in slots")
    except (_LogitsDiffer, InvalidModel, *TEST_ERRORS) as error:
        return _fall_back_to_plain(command, plain, first_line(error))
    runner = _new_slots_runner(model, command.slots, steer_mask, command)
    if not command.graphs or model.device.type not in GRAPH_RECORDERS:
        return RunnerChoice(runner, "slots", note)
    if reason := _graph_failure(model, steer_mask, command, expected):
        return RunnerChoice(runner, "slots", "; ".join(filter(None, (note, f"not replayed as graphs: {reason}"))))
    runner.enable_graphs(GRAPH_RECORDERS[model.device.type], active_hooks)
    return RunnerChoice(runner, "slots + graphs", note)


def _fall_back_to_plain(command: LoadModel, plain: PlainRunner, reason: str) -> RunnerChoice:
    if command.runner == "slots":
        raise InvalidModel(f"this model cannot run in slots: {reason}; set `runner` to auto")
    return RunnerChoice(plain, "plain", reason)


def _unsupported_reason(model: PreTrainedModel) -> str | None:
    """Properties that short test sequences would not reveal."""
    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    if rope.get("rope_type") == "dynamic":
        return "its rotary embedding depends on the longest sequence it has seen"
    if len({parameter.device for parameter in model.parameters()}) > 1:
        return "it is spread over several devices"
    return None


def _new_slots_runner(
    model: PreTrainedModel, capacity: int, steer_mask: SteerMaskFunction, command: LoadModel
) -> SlotsRunner:
    return SlotsRunner(model, capacity, steer_mask, out_of_memory.kv_cache_budget(model.device, command.kv_cache_bytes))


@torch.inference_mode()
def _graph_failure(
    model: PreTrainedModel, steer_mask: SteerMaskFunction, command: LoadModel, expected: list[Tensor]
) -> str | None:
    """Record the first decoding pass, replay it and the next; → why that failed."""
    # one row more than prompts, to test a padding row
    runner = _new_slots_runner(model, len(TEST_PROMPT_LENGTHS) + 1, steer_mask, command)
    runner.enable_graphs(GRAPH_RECORDERS[model.device.type], tuple)
    assert runner.graphs is not None
    try:
        _compare(_slots_runner_logits(runner, model), expected, model, "replayed")
    except (_LogitsDiffer, RuntimeError) as error:
        return first_line(error)
    return runner.graphs.failure


def _try_grouped_query_attention(model: PreTrainedModel, expected: list[Tensor]) -> str:
    """Use `millm_gqa` if the model computes the same with it; → why not, or ''."""
    native = model.config._attn_implementation
    try:
        model.set_attn_implementation(kv_cache.GROUPED_QUERY_ATTENTION)
        _compare([_reference_logits(model, ids) for ids in _prompts(model)], expected, model, "with miLLM's attention")
    except (_LogitsDiffer, KeyError, *TEST_ERRORS) as error:
        model.set_attn_implementation(native)
        return f"its own {native} attention is kept: {first_line(error)}"
    return ""


def _reference_logits(model: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    """Logits of a sequence's last tokens, in one pass without a cache  # [TEST_DECODE_STEPS + 1, V]"""
    logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    return logits[0, -1 - TEST_DECODE_STEPS :].float()


def _slots_runner_logits(runner: SlotsRunner, model: PreTrainedModel) -> list[Tensor]:
    """The same tokens through the cache: prompts in chunks, then one token of each sequence per pass."""
    sequences = [
        Sequence.from_request(Generate(id=str(n), prompt=ids, max_tokens=1)) for n, ids in enumerate(_prompts(model))
    ]
    logits_by_sequence: list[list[Tensor]] = [[] for _ in sequences]
    for sequence, collected in zip(sequences, logits_by_sequence, strict=True):
        runner.allocate(sequence, reuse=False)
        end = len(sequence.request.prompt) - TEST_DECODE_STEPS
        for start in range(0, end, TEST_CHUNK_TOKENS):
            tokens = sequence.request.prompt[start : min(start + TEST_CHUNK_TOKENS, end)]
            logits = runner.run((ScheduledRow(sequence, start, tokens),))[:, -1]
        collected.append(logits[0].float())
        runner.start_decoding(sequence)
    for _ in range(TEST_DECODE_STEPS):
        rows = tuple(ScheduledRow(each, each.num_computed_tokens, each.uncomputed_tokens[:1]) for each in sequences)
        for collected, row_logits in zip(logits_by_sequence, runner.run(rows)[:, -1], strict=True):
            collected.append(row_logits.to(torch.float32, copy=True))
    return [torch.stack(collected) for collected in logits_by_sequence]


def _plain_runner_logits(model: PreTrainedModel) -> list[Tensor]:
    """The same tokens through the model's own cache, one at a time, to measure the noise of quantized layers."""
    logits_by_sequence = []
    for ids in _prompts(model):
        runner, sequence = PlainRunner(model), Sequence.from_request(Generate(id="", prompt=ids, max_tokens=1))
        logits = [runner.run((ScheduledRow(sequence, start, (token,)),))[:, -1] for start, token in enumerate(ids)]
        logits_by_sequence.append(torch.cat(logits[-1 - TEST_DECODE_STEPS :]).float())
    return logits_by_sequence


def _compare(logits: list[Tensor], expected: list[Tensor], model: PreTrainedModel, variant: str) -> None:
    """Raises _LogitsDiffer."""
    tolerance = TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])
    if quantization_label(model):
        tolerance = max(tolerance, QUANTIZED_NOISE * _distance(_plain_runner_logits(model), expected))
    difference = _distance(logits, expected)
    if not difference <= tolerance:  # also for NaN
        raise _LogitsDiffer(f"{variant} its logits differ by {difference:.1%}")


def _distance(logits: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference of a logit, relative to the largest logit of its sequence."""
    pairs = zip(logits, expected, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item() for a, b in pairs)


def _prompts(model: PreTrainedModel) -> Iterator[tuple[int, ...]]:
    """Spread over the vocabulary, the same at every load."""
    size = model.config.get_text_config(decoder=True).vocab_size
    for number, length in enumerate(TEST_PROMPT_LENGTHS):
        yield tuple((7919 * (number + 1) + 104729 * position) % size for position in range(length))


def check_encoder(model: PreTrainedModel) -> None:
    """Raises InvalidModel unless a few tokens give as many hidden states of the configured width."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise InvalidModel(f"{type(model).__name__} cannot embed: its decoder needs more than the text")
    width = model.config.get_text_config(decoder=True).hidden_size
    tokens = tuple(range(2, 7))
    try:
        shape = tuple(last_hidden_states(model, tokens).shape)
    except TEST_ERRORS as error:
        raise InvalidModel(f"{type(model).__name__} cannot embed plain text: {first_line(error)}") from error
    if shape != (len(tokens), width):
        raise InvalidModel(f"{type(model).__name__} cannot embed: {len(tokens)} tokens give hidden states {shape}")
