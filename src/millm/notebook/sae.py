"""An SAE by its name: the server's own loader and arithmetic, on tensors of one's own.

Models whose decoder runs for a measurement: meanwhile nothing is steered or heard.
"""

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
    _paused_models.add(model)
    try:
        yield
    finally:
        _paused_models.discard(model)


def is_paused(model: nn.Module) -> bool:
    return model in _paused_models


class SAE:
    """What `SAE.load` gives. `x [..., d_in]` may be of any float type; arithmetic is float32."""

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
        self.folder = folder
        """Its memory-mapped copy in MILLM_HOME."""
        self.labels = labels
        """By feature: what its `labels.jsonl` says, if it has one."""
        self.device = device
        self.hook_point = hook_point
        """Where it is put in place of what its own configuration says."""
        self.allow_model_mismatch = allow_model_mismatch
        self.residual_norm: float | None = None
        """Median ‖x‖ at its hook, which `unit="norm"` needs: see `measure`."""
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

        `device`: where `encode` and its kin compute; default: where the tensor is. `token`: default: HF_TOKEN, or
        what `hf auth login` has stored. Raises CannotStart (neither a folder nor an id), DownloadFailed and its kin,
        or InvalidSae.
        """
        settings = Settings.load()
        home = Home(settings.home_folder)
        home.create()
        found = _locate_sae(fspath(name), token or _hf_token(settings))
        labels = MappingProxyType({label.index: label for label in read_labels(found.folder)})
        return cls(
            found.name,
            canonicalise(found.folder, home.canonical_saes),
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
        """How many features there are."""
        return self.config.d_sae

    @property
    def layer(self) -> int | None:
        return self.config.layer

    @property
    def sha256(self) -> str:
        """Of the weights it was read from."""
        return self._autoencoder.sha256

    def encode(self, x: Tensor) -> Tensor:
        """x [..., d_in] → [..., d_sae], in the SAE's own units: SAELens' `encode`."""
        return self._autoencoder.encode(self._check_width(x))

    def activations(self, x: Tensor) -> Tensor:
        """x [..., d_in] → [..., d_sae], in units of the residual stream: the server's numbers.

        They differ from `encode` where decoder rows are not of unit length.
        """
        return self._autoencoder.activations(self._check_width(x))

    def decode(self, activations: Tensor, x: Tensor | None = None) -> Tensor:
        """What `encode` gave → [..., d_out].

        `x`: what had been encoded, for SAEs that normalise each token. Raises InvalidRequest where it is missing.
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
        """x [..., d_in] → [..., d_out]: what the SAE makes of it; for a transcoder, of what follows it."""
        return self._autoencoder.reconstruct(self._check_width(x))

    def direction(self, index: int) -> Tensor:
        """A feature's decoder row [d_out], scaled to unit length: what `add` adds `strength` of.

        Raises InvalidSteering.
        """
        return self._autoencoder.features([index], device=self.device or "cpu").dec[0]

    @torch.no_grad()
    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SaeCalibration:
        """What the server measures when it attaches an SAE, on the same text; sets `residual_norm`.

        Raises InvalidSae, SaeMismatch or InvalidModel.
        """
        sae = open_sae(self.folder, model)
        texts: Any = tokenizer(calibration_text())["input_ids"]
        ids = tuple(tuple(text) for text in texts)
        with pause_hooks(model):
            found = calibrate(sae, *capture_calibration(model, sae, sae_hook_point(model, sae, self.hook_point), ids))
        self.residual_norm = found.residual_norm
        return found

    def __repr__(self) -> str:
        where = self.hook_point or self.config.hf_hook_name or self.config.hook_name
        return f"SAE({self.name!r}, {self.config.architecture}, {self.d_sae} features of {where}, width {self.d_in})"

    def _check_width(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_in:
            raise InvalidRequest(f"this SAE reads tensors [..., {self.d_in}], not {list(x.shape)}")
        return self._to_device(x)

    def _to_device(self, x: Tensor) -> Tensor:
        return x if self.device is None else x.to(self.device)


def _locate_sae(name: str, token: str | None) -> LocalCheckpoint:
    """In a thread of its own: a notebook has an event loop already, and the download wants one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(locate_sae, name, token, lambda *_: None).result()


def _hf_token(settings: Settings) -> str | None:
    return settings.hf_token.get_secret_value() if settings.hf_token else None
