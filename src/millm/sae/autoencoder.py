"""A sparse autoencoder, memory-mapped from its canonical folder; arithmetic is float32.

Single features are read row by row, the full dictionary once per device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from millm.errors import InvalidSteering
from millm.sae.activations import EncoderRows, FeatureRows, centred, decoder_norms, keep_top_k, normalise, output_shift
from millm.sae.config import SaeConfig
from millm.sae.formats.canonical import open_canonical

TOKENS_PER_CHUNK = 32  # bounds memory: 32 tokens × 1M features × 4 bytes = 128 MB
RESIDUAL_TOLERANCE = 1e-4  # of the vector's length; a smaller residual is rounding
_DECODER_ROWS_PER_CHUNK = 4096


class SparseAutoencoder:
    """x [..., d_in] may have any float type and device; tensors loaded for it are cached on its device."""

    def __init__(self, config: SaeConfig, sha256: str, tensors: dict[str, Tensor]) -> None:
        self.config = config
        self.sha256 = sha256  # of the original weights file
        self._tensors = tensors
        self._device_cache: dict[tuple[str, torch.device], Tensor] = {}

    @classmethod
    def open(cls, folder: Path) -> "SparseAutoencoder":
        """Raises InvalidSae when `folder` is not a canonical SAE folder (see `millm.sae.formats.canonicalise`)."""
        header, stored = open_canonical(folder)
        return cls(header.config, header.sha256, stored)

    def features(self, indices: Sequence[int] | Tensor, device: torch.device | str = "cpu") -> FeatureRows:
        """The rows of k features in float32 on `device`; only these are read. Raises InvalidSteering."""
        index = torch.as_tensor(indices, dtype=torch.long, device="cpu")  # [k]
        self._check_indices(index)
        rows = {name: self._tensors[name][index].to(device, torch.float32) for name in self._per_feature_names()}
        norm = decoder_norms(rows["W_dec"])
        unit = rows["W_dec"] / norm.unsqueeze(-1)
        return FeatureRows(**vars(_encoder_rows(self.config, rows)), dec=unit, dec_norm=norm)

    def _check_indices(self, index: Tensor) -> None:
        for invalid in index[(index < 0) | (index >= self.config.d_sae)].tolist():
            raise InvalidSteering(
                f"feature {invalid} does not exist: this SAE has the features 0 to {self.config.d_sae - 1}",
                param="index",
            )

    def normalise(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        """See `millm.sae.activations.normalise`."""
        b_dec = self._load_tensor(x.device, "b_dec") if self.config.apply_b_dec_to_input else None
        return normalise(x, self.config, b_dec)

    def encode(self, x: Tensor) -> Tensor:
        """x [..., d_in] → native activations [..., d_sae], float32: SAELens' `encode`."""
        z, _ = self.normalise(x)
        rows = _encoder_rows(
            self.config, {name: self._load_tensor(x.device, name) for name in self._per_feature_names() - {"W_dec"}}
        )
        if self.config.k is None:
            return rows.native_activations(z)
        ranked = rows.pre_activations(z)
        if self.config.rescale_acts_by_decoder_norm:
            ranked = ranked * self.decoder_norms(x.device)
        return keep_top_k(ranked, self.config.k)

    def activations(self, x: Tensor) -> Tensor:
        """x [..., d_in] → activations [..., d_sae] in residual units, as in `FeatureRows`."""
        native = self.encode(x)
        # A topk SAE that ranks by decoder norm already returns residual units.
        return native if self.config.rescale_acts_by_decoder_norm else native * self.decoder_norms(x.device)

    def decode(self, acts: Tensor, gain: Tensor | float = 1.0, shift: Tensor | float = 0.0) -> Tensor:
        """Native activations [..., d_sae] → [..., d_out], as SAELens; gain and shift undo `normalise`."""
        if self.config.rescale_acts_by_decoder_norm:
            acts = acts / self.decoder_norms(acts.device)
        return (acts @ self._load_tensor(acts.device, "W_dec") + self._load_tensor(acts.device, "b_dec")) * gain + shift

    def reconstruct(self, x: Tensor) -> Tensor:
        """x [..., d_in] → [..., d_out]: the SAE's reconstruction of x; for a transcoder, of its target."""
        if not self.config.is_transcoder:
            _, gain = self.normalise(x)
            return self.decode(self.encode(x), gain, output_shift(x, self.config))
        output = self.decode(self.encode(x))
        if self.config.has_skip:
            output = output + centred(x, self.config) @ self._load_tensor(x.device, "W_skip").T
        return output

    def decoder_norms(self, device: torch.device | str = "cpu") -> Tensor:
        """‖W_dec[i]‖ of every feature, [d_sae], float32."""
        key = ("decoder_norms", torch.device(device))
        if key not in self._device_cache:
            decoder = self._tensors["W_dec"]
            starts = range(0, self.config.d_sae, _DECODER_ROWS_PER_CHUNK)
            norms = [decoder_norms(decoder[start : start + _DECODER_ROWS_PER_CHUNK].float()) for start in starts]
            self._device_cache[key] = torch.cat(norms).to(device)
        return self._device_cache[key]

    def projections(self, vector: Tensor) -> Tensor:
        """vector [d_out] on the CPU → its length along the unit decoder row of every feature, [d_sae], float32.

        The decoder is read in chunks that are not cached.
        """
        chunks = torch.split(self._tensors["W_dec"], _DECODER_ROWS_PER_CHUNK)
        return torch.cat([chunk.float() @ vector for chunk in chunks]) / self.decoder_norms()

    def _per_feature_names(self) -> set[str]:
        return self._tensors.keys() - {"b_dec", "W_skip"}

    def _load_tensor(self, device: torch.device, name: str) -> Tensor:
        """One stored tensor in float32 on `device`, cached."""
        if (name, device) not in self._device_cache:
            self._device_cache[name, device] = self._tensors[name].to(device, torch.float32)
        return self._device_cache[name, device]


def _encoder_rows(config: SaeConfig, rows: dict[str, Tensor]) -> EncoderRows:
    enc = rows["W_enc_T"]
    return EncoderRows(
        architecture=config.architecture,
        enc=enc,
        b_enc=rows.get("b_enc", enc.new_zeros(len(enc))),
        threshold=rows.get("threshold"),
        b_gate=rows.get("b_gate"),
        r_mag=rows.get("r_mag"),
        b_mag=rows.get("b_mag"),
    )


def matching_pursuit(
    sae: SparseAutoencoder, vector: Tensor, max_features: int
) -> tuple[tuple[tuple[int, float], ...], float]:
    """Decompose `vector [d_out]` into few decoder rows, by orthogonal matching pursuit.

    Returns ((feature, strength along its unit row), largest first), and the residual's share of the length. Each step
    adds the row that the residual points along most and refits all strengths by least squares (Pati, Rezaiifar,
    Krishnaprasad 1993). Strengths may be negative.
    """
    length = float(vector.norm())
    chosen: list[int] = []
    strengths, residual = torch.zeros(0), vector
    while len(chosen) < min(max_features, sae.config.d_sae) and float(residual.norm()) > RESIDUAL_TOLERANCE * length:
        projections = sae.projections(residual).abs()  # [F]
        projections[chosen] = 0.0
        chosen.append(int(projections.argmax()))
        rows = sae.features(chosen).dec.double()  # [n, d_out]
        strengths = torch.linalg.lstsq(rows.T, vector.double()[:, None]).solution[:, 0]
        residual = (vector.double() - strengths @ rows).float()
    order = strengths.abs().argsort(descending=True).tolist()
    pairs = tuple((chosen[index], float(strengths[index])) for index in order)
    return pairs, float(residual.norm()) / length if length else 0.0


@dataclass(frozen=True)
class FullReading:
    """Activations from the full dictionary; zero at tokens that were not read."""

    named: Tensor  # [B, T, K] activations of the requested features
    top_values: Tensor  # [B, T, k], largest first
    top_indices: Tensor  # [B, T, k]

    def where(self, rows: Tensor, other: "FullReading") -> "FullReading":
        """This reading for the `rows [B, 1, 1]` that are true, the other for the rest."""
        return FullReading(
            torch.where(rows, self.named, other.named),
            torch.where(rows, self.top_values, other.top_values),
            torch.where(rows, self.top_indices, other.top_indices),
        )


def read_all_features(
    sae: SparseAutoencoder, x: Tensor, token_indices: Tensor, features: Tensor, top_k: int
) -> FullReading:
    """Activations of `features [B, K]` and the `top_k` largest of all, in residual units.

    Read from x [B, T, d] at `token_indices [N]` (b·T + t); each of these tokens is encoded once, others are free.
    """
    shape = x.shape[:2]
    rows, ids = x.flatten(0, 1)[token_indices], features[token_indices // shape[1]]  # [N, d], [N, K]
    chunks = zip(torch.split(rows, TOKENS_PER_CHUNK), torch.split(ids, TOKENS_PER_CHUNK), strict=True)
    readings = zip(*(_read_chunk(sae, x_chunk, id_chunk, top_k) for x_chunk, id_chunk in chunks), strict=True)
    return FullReading(*(_scatter_to_tokens(torch.cat(parts), token_indices, shape) for parts in readings))


def _read_chunk(sae: SparseAutoencoder, x: Tensor, ids: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    activations = sae.activations(x)  # [N, F]
    top = activations.topk(top_k, dim=-1)
    return activations.gather(-1, ids), top.values, top.indices


def _scatter_to_tokens(values: Tensor, token_indices: Tensor, shape: torch.Size) -> Tensor:
    """values [N, w] → [B, T, w], each row at its token, zero elsewhere."""
    scattered = values.new_zeros(shape.numel(), values.shape[-1])
    scattered[token_indices] = values
    return scattered.view(*shape, values.shape[-1])
