"""Which runner a model gets: the batched one if it computes what the model computes alone, else the plain one.

Architectures differ in masks, positions and caches, and change with each release of transformers. So nothing is
assumed of a model: at every load a few short sequences go through it both ways, and the numbers decide.

A checkpoint without a head that writes tokens (BERT and its kin): what it can do is tried out once, at load.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from millm.engine import kv_cache, out_of_memory
from millm.engine.cuda_graphs import GRAPH_RECORDERS
from millm.engine.messages import Generate, LoadModel
from millm.engine.model_runner import PlainRunner, Runner, SlotsRunner, SteerMaskFunction
from millm.engine.quantization import quantization_label
from millm.engine.scheduler import ScheduledRow, Scheduler, Sequence
from millm.engine.scoring import last_hidden_states
from millm.errors import InvalidModel
from millm.sae.steering_hook import SteeringHook

UNUSED_WEIGHT_PREFIXES = ("pooler.",)
"""Weights that checkpoints without them can do without: a vector is pooled from the last hidden states."""


def check_encoder(model: PreTrainedModel) -> None:
    """Raises InvalidModel if a few tokens do not become as many hidden states of the width it says."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise InvalidModel(f"{type(model).__name__} cannot embed: its decoder needs more than the text")
    width = model.config.get_text_config(decoder=True).hidden_size
    tokens = tuple(range(2, 7))
    try:
        shape = tuple(last_hidden_states(model, tokens).shape)
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise InvalidModel(f"{type(model).__name__} cannot embed plain text: {_encoder_error_line(error)}") from error
    if shape != (len(tokens), width):
        raise InvalidModel(f"{type(model).__name__} cannot embed: {len(tokens)} tokens give hidden states {shape}")


def max_encoder_positions(model: PreTrainedModel) -> int | None:
    """Tokens there is a learned position for, where padding takes the first of them (RoBERTa, MPNet); None elsewhere.

    Their configuration counts the others too, and a longer text would look up what is not there.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return None


def _encoder_error_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


log = structlog.get_logger()
TEST_PROMPT_LENGTHS = (5, 21, 13)
"""Tokens of the test sequences: mixed, so that every row has its own positions."""
TEST_CHUNK_TOKENS = 8
TEST_DECODE_STEPS = 2
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""Largest difference of a logit, relative to the largest logit: far above rounding, far below a wrong mask."""
QUANTIZED_NOISE = 2.0
"""bitsandbytes' layers turn a difference in the last digit into a step of their grid: a model may differ this many
times as much as it differs from itself."""


@dataclass(frozen=True)
class RunnerChoice:
    runner: Runner | None
    """None: nothing to continue with, the model only embeds."""
    name: str
    reason: str
    """Why not more than that; empty for the best there is."""

    def scheduler(self) -> Scheduler:
        runner = self.runner
        return Scheduler(runner.capacity, runner.prefill_chunk, runner.runs_alone) if runner else Scheduler(capacity=1)


class _LogitsDiffer(Exception):
    """The two ways disagree."""


def choose_runner(
    model: PreTrainedModel,
    command: LoadModel,
    steer_mask: SteerMaskFunction,
    active_hooks: Callable[[], Iterable[SteeringHook]] = tuple,
) -> RunnerChoice:
    """`taps`: those that are attached by the time a pass runs.

    Raises InvalidModel if the model can be run in no way, or not in the one that was asked for."""
    if not command.generates:
        check_encoder(model)
        return _log_choice(RunnerChoice(None, "encoder", "it has no head that writes tokens"))
    plain = PlainRunner(model)
    if command.runner == "plain":
        return _log_choice(RunnerChoice(plain, "plain", "`runner` is set to plain"))
    if why := _unsupported_reason(model):
        return _log_choice(_fall_back_to_plain(command, plain, why))
    try:
        with torch.inference_mode():
            expected = [_reference_logits(model, ids) for ids in _prompts(model)]
            note = _try_grouped_query_attention(model, expected) if command.attention == "auto" else ""
            _compare(
                _slots_runner_logits(_new_slots_runner(model, len(TEST_PROMPT_LENGTHS), steer_mask, command), model),
                expected,
                model,
                "in slots",
            )
    except (_LogitsDiffer, InvalidModel, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        return _log_choice(_fall_back_to_plain(command, plain, _one_line(error)))
    runner = _new_slots_runner(model, command.slots, steer_mask, command)
    if not command.graphs or model.device.type not in GRAPH_RECORDERS:
        return _log_choice(RunnerChoice(runner, "slots", note))
    if why := _graph_failure(model, steer_mask, command, expected):
        return _log_choice(
            RunnerChoice(runner, "slots", "; ".join(filter(None, (note, f"not replayed as graphs: {why}"))))
        )
    runner.enable_graphs(GRAPH_RECORDERS[model.device.type], active_hooks)
    return _log_choice(RunnerChoice(runner, "slots + graphs", note))


def _log_choice(choice: RunnerChoice) -> RunnerChoice:
    log.info("engine.runner", runner=choice.name, reason=choice.reason)
    return choice


def _fall_back_to_plain(command: LoadModel, plain: PlainRunner, reason: str) -> RunnerChoice:
    if command.runner == "slots":
        raise InvalidModel(f"this model cannot run in slots: {reason}; set `runner` to auto")
    return RunnerChoice(plain, "plain", reason)


def _unsupported_reason(model: PreTrainedModel) -> str | None:
    """What a few short sequences would not show."""
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
    """The first decoding pass is recorded, and it and the next are replayed; → what was wrong with that.

    One row more than there are prompts: a recording has a row that stands for nobody.
    """
    runner = _new_slots_runner(model, len(TEST_PROMPT_LENGTHS) + 1, steer_mask, command)
    runner.enable_graphs(GRAPH_RECORDERS[model.device.type], tuple)
    assert runner.graphs is not None
    try:
        _compare(_slots_runner_logits(runner, model), expected, model, "replayed")
    except (_LogitsDiffer, RuntimeError) as error:
        return _one_line(error)
    return runner.graphs.failure


def _try_grouped_query_attention(model: PreTrainedModel, expected: list[Tensor]) -> str:
    """Keep miLLM's attention if the model computes the same with it; → why not, or nothing."""
    native = model.config._attn_implementation
    try:
        model.set_attn_implementation(kv_cache.GROUPED_QUERY_ATTENTION)
        _compare([_reference_logits(model, ids) for ids in _prompts(model)], expected, model, "with miLLM's attention")
    except (_LogitsDiffer, TypeError, ValueError, AttributeError, RuntimeError, KeyError) as error:
        model.set_attn_implementation(native)
        return f"its own {native} attention is kept: {_one_line(error)}"
    return ""


def _reference_logits(model: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    """Logits of the last tokens of one sequence in one pass without any cache  # [DECODED + 1, V]"""
    logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    return logits[0, -1 - TEST_DECODE_STEPS :].float()


def _slots_runner_logits(runner: SlotsRunner, model: PreTrainedModel) -> list[Tensor]:
    """The same tokens through the cache: prompts in chunks, then together one token at a time."""
    sequences = [
        Sequence.from_request(Generate(id=str(n), prompt=ids, max_tokens=1)) for n, ids in enumerate(_prompts(model))
    ]
    found: list[list[Tensor]] = [[] for _ in sequences]
    for index, sequence in enumerate(sequences):
        runner.allocate(sequence, reuse=False)
        end = len(sequence.request.prompt) - TEST_DECODE_STEPS
        for start in range(0, end, TEST_CHUNK_TOKENS):
            tokens = sequence.request.prompt[start : min(start + TEST_CHUNK_TOKENS, end)]
            logits = runner.run((ScheduledRow(sequence, start, tokens),))[:, -1]
        found[index].append(logits[0].float())
        runner.start_decoding(sequence)
    for _ in range(TEST_DECODE_STEPS):
        rows = tuple(
            ScheduledRow(sequence, sequence.num_computed_tokens, sequence.uncomputed_tokens[:1])
            for sequence in sequences
        )
        for index, row_logits in enumerate(runner.run(rows)[:, -1]):
            found[index].append(row_logits.to(torch.float32, copy=True))
    return [torch.stack(logits) for logits in found]


def _compare(logits: list[Tensor], expected: list[Tensor], model: PreTrainedModel, how: str) -> None:
    allowed = TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])
    if quantization_label(model):
        allowed = max(allowed, QUANTIZED_NOISE * _distance(_plain_runner_logits(model), expected))
    difference = _distance(logits, expected)
    if not difference <= allowed:
        raise _LogitsDiffer(f"{how} its logits differ by {difference:.1%}")


def _distance(logits: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference of a logit, relative to the largest logit of its sequence."""
    pairs = zip(logits, expected, strict=True)
    return max(((one - other).abs().max() / other.abs().max().clamp_min(1e-6)).item() for one, other in pairs)


def _plain_runner_logits(model: PreTrainedModel) -> list[Tensor]:
    """The same tokens through the model's own cache, one at a time: what its quantised layers make of rounding."""
    found = []
    for ids in _prompts(model):
        runner, sequence = PlainRunner(model), Sequence.from_request(Generate(id="", prompt=ids, max_tokens=1))
        logits = [runner.run((ScheduledRow(sequence, place, (token,)),))[:, -1] for place, token in enumerate(ids)]
        found.append(torch.cat(logits[-1 - TEST_DECODE_STEPS :]).float())
    return found


def _prompts(model: PreTrainedModel) -> Iterator[tuple[int, ...]]:
    """Spread over the vocabulary, the same at every load."""
    size = model.config.get_text_config(decoder=True).vocab_size
    for number, length in enumerate(TEST_PROMPT_LENGTHS):
        yield tuple((7919 * (number + 1) + 104729 * place) % size for place in range(length))


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
