"""Which features of a whole dictionary fire on one text: every token that counts encoded, without any steering."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.messages import FeatureActivity, FeaturesScanned, ScanFeatures
from millm.engine.taps import AttachedSaes
from millm.errors import InvalidRequest
from millm.sae import hooks
from millm.sae.autoencoder import TOKENS_PER_CHUNK, SparseAutoencoder


def scan_features(model: PreTrainedModel, attached_saes: AttachedSaes, command: ScanFeatures) -> FeaturesScanned:
    """Raises InvalidRequest, SaeNotFound or SaeDetached."""
    if not command.tokens:
        raise InvalidRequest("a text to survey needs at least one token")
    attached = attached_saes.get(command.sae, command.attachment)
    attached_saes.prepare_unsteered()
    hidden = hooks.capture(model, [attached.hook_point], command.tokens)[attached.hook_point.name]  # [T, d]
    counted = hidden[_counting(command.tokens, attached_saes.special_ids)]
    return FeaturesScanned(id=command.id, tokens=len(counted), features=_feature_activities(attached.hook.sae, counted))


def _counting(tokens: tuple[int, ...], special_ids: frozenset[int]) -> list[int]:
    """Positions behind the attention sink that no template put there; where there are none, as good as it gets."""
    behind = list(range(1, len(tokens)))
    plain = [position for position in behind if tokens[position] not in special_ids]
    return plain or behind or [0]


@torch.inference_mode()
def _feature_activities(sae: SparseAutoencoder, x: Tensor) -> tuple[FeatureActivity, ...]:
    """x [N, d] → what each feature did on it, those that did nothing left out."""
    size = sae.config.d_sae
    count = torch.zeros(size, dtype=torch.long, device=x.device)
    total = torch.zeros(size, dtype=torch.float64, device=x.device)
    largest = torch.zeros(size, device=x.device)
    for some in torch.split(x, TOKENS_PER_CHUNK):
        activations = sae.activations(some)  # [n, F]
        count += (activations > 0).sum(dim=0)
        total += activations.sum(dim=0, dtype=torch.float64)
        largest = torch.maximum(largest, activations.amax(dim=0))
    fired = count.nonzero()[:, 0]
    columns = (fired.tolist(), count[fired].tolist(), total[fired].tolist(), largest[fired].tolist())
    return tuple(FeatureActivity(*one) for one in zip(*columns, strict=True))
