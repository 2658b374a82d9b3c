"""Whether an SAE belongs on a model, and where: the checks that the server makes when it attaches one."""

from pathlib import Path

from transformers import PreTrainedModel

from millm.engine.core import check_encoder_supported, check_width, open_sae, sae_hook_point
from millm.engine.messages import SaeFacts
from millm.errors import InvalidRequest, SaeModelMismatch
from millm.notebook.resting import pause_hooks
from millm.notebook.sae import SAE
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.base_models import model_mismatch
from millm.sae.hooks import HookPoint


def find_sae_hook_point(model: PreTrainedModel, sae: SAE) -> HookPoint:
    """Raises SaeMismatch, SaeModelMismatch, InvalidSae, or InvalidRequest for what is no Transformers model."""
    if not isinstance(model, PreTrainedModel):
        raise InvalidRequest(f"a Transformers model is needed, not {type(model).__name__}", param="model")
    check_encoder_supported(model)
    _check_model_name(model, sae)
    own = open_sae(sae.folder, model)
    point = sae_hook_point(model, own, sae.hook_point)
    with pause_hooks(model):
        check_width(model, own, point)
    return point


def _check_model_name(model: PreTrainedModel, sae: SAE) -> None:
    """A folder's name says nothing of the model in it."""
    name = model.name_or_path
    mismatch = None if not name or Path(name).exists() else model_mismatch(sae.config.model_name, name)
    if mismatch and not sae.allow_model_mismatch:
        raise SaeModelMismatch(f"{mismatch}; `SAE.load(…, allow_model_mismatch=True)` allows it all the same")


def sae_facts(sae: SAE, autoencoder: SparseAutoencoder, point: HookPoint, name: str) -> SaeFacts:
    """As the server knows an attached SAE, but for what nobody has measured."""
    return SaeFacts(
        sae=name,
        architecture=autoencoder.config.architecture,
        layer=point.layer,
        hook_point=point.name,
        features=autoencoder.config.d_sae,
        steerable=autoencoder.config.steerable,
        exclude_special_tokens=autoencoder.config.exclude_special_tokens,
        residual_norm=sae.residual_norm or float("nan"),
        variance_explained=None,
        l0=float("nan"),
        warnings=(),
        sha256=sae.sha256,
    )
