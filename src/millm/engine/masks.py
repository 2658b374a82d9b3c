"""Which keys each token looks at, as the 4-D masks that transformers' models take as they are."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from millm.errors import InvalidModel

SUPPORTED_LAYER_TYPES = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class AttentionMaskKinds:
    """The kinds of attention in a model's layers: window per kind, None where a token sees everything before it."""

    windows: dict[str, int | None]

    def additive_masks(self, positions: Tensor, columns: int, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """`positions [B, T]` of the new tokens → 0 where they look, the least number elsewhere `[B, 1, T, columns]`.

        A dict by kind where the model has several, as its own code would make it.
        """
        masks = {kind: _mask(positions, columns, window, dtype) for kind, window in self.windows.items()}
        return masks if len(masks) > 1 else next(iter(masks.values()))


def attention_mask_kinds(config: Any) -> AttentionMaskKinds:
    """The model's kinds. Raises InvalidModel if it has one whose mask cannot be made here."""
    window = getattr(config, "sliding_window", None)
    layer_types = set(getattr(config, "layer_types", None) or ())
    if strange := layer_types - SUPPORTED_LAYER_TYPES:
        raise InvalidModel(f"its layers include {', '.join(sorted(strange))}")
    if not layer_types:
        layer_types = {"sliding_attention" if window else "full_attention"}
    return AttentionMaskKinds({kind: window if kind == "sliding_attention" else None for kind in sorted(layer_types)})


def _mask(positions: Tensor, columns: int, window: int | None, dtype: torch.dtype) -> Tensor:
    key = torch.arange(columns, device=positions.device)
    query = positions[:, None, :, None]  # [B, 1, T, 1]
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    return torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill_(hidden, torch.finfo(dtype).min)
