"""How often the whole dictionary may be read: at every n-th position, so that it stays within 5 % of the time.

Measured where it will run, when an SAE is attached; nothing is assumed of the machine.
"""

import math
import time
from collections.abc import Callable, Sequence
from statistics import median_low

import torch
from torch import Tensor

from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.hooks import CausalModel
from millm.sae.whole import read_all_features

MAX_TIME_SHARE = 0.025
"""Of the model's own time: half of what `top_k` may cost. Finding what is due and telling it, which is not measured
here, took about as long again (demo model in 8 bits, in process: 6.5 % at n = 1, the reads alone 2 to 4 %)."""
_MEASURED_TOP_K = 100
"""The most that a request may ask for."""
_CPU_CHUNK_TOKENS, _GPU_CHUNK_TOKENS = 32, 512
"""Tokens of a piece of prompt. One token is bound by memory, a piece by arithmetic, and the SAE's is float32 whatever
the model's is. The demo's SAE on one busy core takes 1.7 % of the model's time at 1 token, 2.0 % at 8, 4.1 % at 32 and
4.4 % at 128; on a GPU it takes longer pieces to be bound by arithmetic."""
_MEASUREMENT_SECONDS = 0.1
"""To measure for, for each number of tokens."""
_MAX_MEASUREMENTS = 8


def compute_sample_every(read_seconds: float, step_seconds: float) -> int:
    """The least n at which a read at every n-th token stays within its share of a step of the model."""
    return max(1, math.ceil(read_seconds / (MAX_TIME_SHARE * step_seconds)))


@torch.no_grad()
def measure_sample_every(model: CausalModel, sae: SparseAutoencoder, ids: Sequence[int], x: Tensor) -> int:
    """`sample_every` of an SAE that reads x [N, d_in], as `ids` through the model give it: the worst of one token and
    a piece of prompt. A batch of tokens lies between the two.
    """
    piece = _CPU_CHUNK_TOKENS if model.device.type == "cpu" else _GPU_CHUNK_TOKENS
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or piece
    tokens = torch.tensor(ids, device=model.device)
    return max(
        _measure_batch(model, sae, _repeat_rows(tokens, n), _repeat_rows(x, n)) for n in (1, min(piece, context))
    )


def _measure_batch(model: CausalModel, sae: SparseAutoencoder, ids: Tensor, x: Tensor) -> int:
    """Steps and reads take turns, as they do in use: each finds the other's weights in the processor's caches."""
    decoder = model.get_decoder()
    at = torch.arange(len(x), device=x.device)
    no_names = at.new_zeros(1, 0)
    top_k = min(_MEASURED_TOP_K, sae.config.d_sae)
    end = time.perf_counter() + _MEASUREMENT_SECONDS
    steps: list[float] = []
    reads: list[float] = []
    while not steps or (time.perf_counter() < end and len(steps) < _MAX_MEASUREMENTS):
        steps.append(_elapsed_seconds(lambda: decoder(input_ids=ids[None], use_cache=False), x.device))
        reads.append(_elapsed_seconds(lambda: read_all_features(sae, x[None], at, no_names, top_k), x.device))
    return compute_sample_every(_median_without_warmup(reads), _median_without_warmup(steps))


def _median_without_warmup(seconds: list[float]) -> float:
    """The first run warms up; it counts only where there was no time for another."""
    return median_low(seconds[1:] or seconds)


def _elapsed_seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _repeat_rows(rows: Tensor, n: int) -> Tensor:
    """n of the rows, from the beginning again where they are fewer."""
    return rows[torch.arange(n, device=rows.device) % len(rows)]
