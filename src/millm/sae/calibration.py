"""Measurements of an SAE when it is attached: scale and fit on a short text, and how often `top_k` may be read."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low

import torch
from torch import Tensor

from millm.errors import InvalidModel, InvalidRequest
from millm.sae.autoencoder import TOKENS_PER_CHUNK, SparseAutoencoder, read_all_features
from millm.sae.hooks import CausalModel

_OUTLIER_FACTOR = 6.0
"""× the median norm. Beyond it are attention sinks, 0.04 % of tokens, whose size would dominate all sums."""
_MIN_VARIANCE_EXPLAINED = 0.5
"""The demo SAE on the bundled text: 0.74 at its own layer, 0.55 and 0.63 at the next ones (not distinguishable),
at most 0.41 two layers off, below -28 on a model with random weights."""
_MAX_ACTIVE_SHARE = 0.1
"""Of the dictionary. The demo SAE: 0.9 % at its own layer, 17 to 34 % four and more layers above it."""
MAX_TIME_SHARE = 0.025
"""Of the model's own time: half of the 5 % that `top_k` may cost. Selecting and reporting the values, which is not
measured here, took about as long again (demo model in 8 bits, in process: 6.5 % at n = 1, the reads alone 2 to 4 %)."""
_MEASURED_TOP_K = 100  # the maximum of a request
_CPU_CHUNK_TOKENS, _GPU_CHUNK_TOKENS = 32, 512
"""Tokens of a prompt chunk. One token is bound by memory, a chunk by arithmetic, and the SAE's is always float32.
On one busy core the demo's SAE needs 1.7 % of the model's time at 1 token, 2.0 % at 8, 4.1 % at 32 and 4.4 % at 128; a
GPU needs longer chunks to be bound by arithmetic."""
_MEASUREMENT_SECONDS = 0.1  # for each number of tokens
_MAX_MEASUREMENTS = 8


@dataclass(frozen=True)
class SaeCalibration:
    """Measured over the calibration text without outliers."""

    residual_norm: float  # median ‖x‖: the unit `norm`
    variance_explained: float | None
    """1 − Σ‖t−t̂‖² / Σ‖t−mean t‖²; None when the target does not vary."""
    l0: float  # mean number of active features per token
    warnings: tuple[str, ...]


@torch.no_grad()
def calibrate(sae: SparseAutoencoder, x: Tensor, target: Tensor) -> SaeCalibration:
    """Measure an SAE on x [N, d_in] and its target [N, d_out], which is x except for transcoders.

    The caller omits position 0 of each text. Raises InvalidRequest without tokens, and InvalidModel when the model's
    own values are not finite.
    """
    norms = _residual_norms(x)
    median = norms.median()
    usual = norms <= _OUTLIER_FACTOR * median
    active = sum(int(sae.encode(rows).count_nonzero()) for rows in torch.split(x[usual].float(), TOKENS_PER_CHUNK))
    l0 = active / x[usual].shape[0]
    explained = _variance_explained(sae, x[usual], target[usual])
    return SaeCalibration(median.item(), explained, l0, tuple(_warnings(explained, l0, sae.config.d_sae)))


def _residual_norms(x: Tensor) -> Tensor:
    if x.shape[0] == 0:
        raise InvalidRequest("an SAE needs at least one token beyond the first of a text to be calibrated on")
    norms: Tensor = torch.linalg.vector_norm(x.float(), dim=-1)  # [N]
    if not norms.isfinite().all():
        raise InvalidModel(
            "the model's values at this hook point are not finite: load it in bfloat16 or float32",
            param="dtype",
        )
    return norms


def _variance_explained(sae: SparseAutoencoder, x: Tensor, target: Tensor) -> float | None:
    target = target.float()
    reconstruction = torch.cat([sae.reconstruct(rows) for rows in torch.split(x.float(), TOKENS_PER_CHUNK)])
    total = (target - target.mean(dim=0)).square().sum()
    return None if total == 0 else (1 - (target - reconstruction).square().sum() / total).item()


def _warnings(explained: float | None, l0: float, d_sae: int) -> Iterator[str]:
    if explained is not None and explained < _MIN_VARIANCE_EXPLAINED:
        share = f"only {explained:.0%}" if explained > 0 else "none"
        yield f"this looks like the wrong layer or model: the SAE explains {share} of the variance here"
    if l0 == 0:
        yield "no feature of the SAE is active here: this looks like the wrong layer or model"
    elif l0 > _MAX_ACTIVE_SHARE * d_sae:
        yield f"{l0:.0f} of {d_sae} features are active per token, far too many: wrong layer or model?"


def compute_sample_every(read_seconds: float, step_seconds: float) -> int:
    """The smallest n for which a read at every n-th token stays within its share of a step of the model."""
    return max(1, math.ceil(read_seconds / (MAX_TIME_SHARE * step_seconds)))


@torch.no_grad()
def measure_sample_every(model: CausalModel, sae: SparseAutoencoder, ids: Sequence[int], x: Tensor) -> int:
    """`sample_every` of an SAE, from x [N, d_in] that `ids` through the model give: the larger of the values for one
    token and for a prompt chunk. A batch of tokens lies between the two.
    """
    chunk = _CPU_CHUNK_TOKENS if model.device.type == "cpu" else _GPU_CHUNK_TOKENS
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or chunk
    tokens = torch.tensor(ids, device=model.device)
    return max(
        _measure_batch(model, sae, _repeat_rows(tokens, n), _repeat_rows(x, n)) for n in (1, min(chunk, context))
    )


def _measure_batch(model: CausalModel, sae: SparseAutoencoder, ids: Tensor, x: Tensor) -> int:
    """Steps and reads alternate, as in use: each finds the other's weights in the processor's caches."""
    decoder = model.get_decoder()
    indices = torch.arange(len(x), device=x.device)
    no_features = indices.new_zeros(1, 0)
    top_k = min(_MEASURED_TOP_K, sae.config.d_sae)
    end = time.perf_counter() + _MEASUREMENT_SECONDS
    steps: list[float] = []
    reads: list[float] = []
    while not steps or (time.perf_counter() < end and len(steps) < _MAX_MEASUREMENTS):
        steps.append(_elapsed_seconds(lambda: decoder(input_ids=ids[None], use_cache=False), x.device))
        reads.append(_elapsed_seconds(lambda: read_all_features(sae, x[None], indices, no_features, top_k), x.device))
    return compute_sample_every(_median_without_warmup(reads), _median_without_warmup(steps))


def _median_without_warmup(seconds: list[float]) -> float:
    """The first run warms up and counts only if it is the only one."""
    return median_low(seconds[1:] or seconds)


def _elapsed_seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _repeat_rows(rows: Tensor, n: int) -> Tensor:
    """n of the rows, repeated from the first if there are fewer."""
    return rows[torch.arange(n, device=rows.device) % len(rows)]
