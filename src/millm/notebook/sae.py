"""`SAE`: an SAE loaded by name, with the server's own loader and arithmetic."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millm.engine.core import capture_calibration, open_sae, sae_hook_point
from millm.errors import InvalidRequest
from millm.hub.home import Home
from millm.hub.labels import Label, read_labels
from millm.hub.locate import LocalCheckpoint, locate_sae
from millm.sae.activations import output_shift
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.calibration import SaeCalibration, calibrate
from millm.sae.config import SaeConfig, calibration_text
from millm.sae.formats import canonicalise
from millm.settings import Settings

_paused_models: WeakSet[nn.Module] = WeakSet()


@contextmanager
def pause_hooks(model: nn.Module) -> Iterator[None]:
    """Neither steer nor watch passes of this model, for a measurement."""
    _paused_models.add(model)
    try:
        yield
    finally:
        _paused_models.discard(model)


def is_paused(model: nn.Module) -> bool:
    return model in _paused_models


class SAE:
    """The result of `SAE.load`. `x [..., d_in]` may have any float type; arithmetic is float32."""

    def __init__(
        self,
        name: str,
        folder: Path,
        labels: Mapping[int, Label],
        *,
        device: torch.device | str | None = None,
        hook_point: str | None = None,
        allow_model_mismatch: bool = False,
    ) -> None:
        self.name = name
        self.folder = folder  # the memory-mapped copy in MILLM_HOME
        self.labels = labels  # by feature, from `labels.jsonl` if the SAE has one
        self.device = device
        self.hook_point = hook_point  # overrides the hook point of the SAE's configuration
        self.allow_model_mismatch = allow_model_mismatch
        self.residual_norm: float | None = None
        """Median ‖x‖ at the hook, needed for `unit="norm"`; see `measure`."""
        self._autoencoder = SparseAutoencoder.open(folder)

    @classmethod
    def load(
        cls,
        name: str | PathLike[str],
        *,
        device: torch.device | str | None = None,
        hook_point: str | None = None,
        allow_model_mismatch: bool = False,
        token: str | None = None,
    ) -> "SAE":
        """A folder, or a Hugging Face id with the path inside: `google/gemma-scope-2b-pt-res/layer_20/width_16k/…`.

        `device`: for `encode` and the like; default: the tensor's own. `token`: default: HF_TOKEN, or the one stored by
        `hf auth login`. Raises CannotStart (neither a folder nor an id), DownloadFailed and its subclasses, or
        InvalidSae.
        """
        settings = Settings.load()
        home = Home(settings.home_folder)
        home.create()
        stored_token = settings.hf_token.get_secret_value() if settings.hf_token else None
        checkpoint = _locate_sae(fspath(name), token or stored_token)
        labels = MappingProxyType({label.index: label for label in read_labels(checkpoint.folder)})
        return cls(
            checkpoint.name,
            canonicalise(checkpoint.folder, home.canonical_saes),
            labels,
            device=device,
            hook_point=hook_point,
            allow_model_mismatch=allow_model_mismatch,
        )

    @property
    def config(self) -> SaeConfig:
        return self._autoencoder.config

    @property
    def d_in(self) -> int:
        return self.config.d_in

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.config.d_sae

    @property
    def layer(self) -> int | None:
        return self.config.layer

    @property
    def sha256(self) -> str:
        """Of the original weights."""
        return self._autoencoder.sha256

    def encode(self, x: Tensor) -> Tensor:
        """x [..., d_in] → [..., d_sae], in the SAE's own units: SAELens' `encode`."""
        return self._autoencoder.encode(self._check_width(x))

    def activations(self, x: Tensor) -> Tensor:
        """x [..., d_in] → [..., d_sae], in units of the residual stream, as in the server's answers.

        Different from `encode` unless decoder rows have unit length.
        """
        return self._autoencoder.activations(self._check_width(x))

    def decode(self, activations: Tensor, x: Tensor | None = None) -> Tensor:
        """The activations from `encode` → [..., d_out].

        `x`: the encoded tensor, for SAEs that normalise each token. Raises InvalidRequest when it is missing.
        """
        activations = self._to_device(activations)
        if x is None:
            if self.config.normalize_activations != "none" or self.config.center_inputs:
                raise InvalidRequest(
                    "this SAE normalises each token: give `decode` the tensor that was encoded as well"
                )
            return self._autoencoder.decode(activations)
        x = self._check_width(x)
        _, gain = self._autoencoder.normalise(x)
        return self._autoencoder.decode(activations, gain, output_shift(x, self.config))

    def reconstruct(self, x: Tensor) -> Tensor:
        """x [..., d_in] → [..., d_out]: the SAE's reconstruction of x; for a transcoder, of its target."""
        return self._autoencoder.reconstruct(self._check_width(x))

    def direction(self, index: int) -> Tensor:
        """A feature's decoder row [d_out], scaled to unit length; `add` adds `strength` times it.

        Raises InvalidSteering.
        """
        return self._autoencoder.features([index], device=self.device or "cpu").dec[0]

    @torch.no_grad()
    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SaeCalibration:
        """The server's measurement when it attaches an SAE, on the same text; sets `residual_norm`.

        Raises InvalidSae, SaeMismatch or InvalidModel.
        """
        sae = open_sae(self.folder, model)
        texts: Any = tokenizer(calibration_text())["input_ids"]
        ids = tuple(tuple(text) for text in texts)
        with pause_hooks(model):
            tensors = capture_calibration(model, sae, sae_hook_point(model, sae, self.hook_point), ids)
            calibration = calibrate(sae, *tensors)
        self.residual_norm = calibration.residual_norm
        return calibration

    def __repr__(self) -> str:
        hook = self.hook_point or self.config.hf_hook_name or self.config.hook_name
        return f"SAE({self.name!r}, {self.config.architecture}, {self.d_sae} features of {hook}, width {self.d_in})"

    def _check_width(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_in:
            raise InvalidRequest(f"this SAE reads tensors [..., {self.d_in}], not {list(x.shape)}")
        return self._to_device(x)

    def _to_device(self, x: Tensor) -> Tensor:
        return x if self.device is None else x.to(self.device)


def _locate_sae(name: str, token: str | None) -> LocalCheckpoint:
    """In a thread: the download runs an event loop, and a notebook's own loop is running already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(locate_sae, name, token, lambda *_: None).result()
