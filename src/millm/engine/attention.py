"""Grouped-query attention without repeating keys and values, registered with transformers as `millm_gqa`.

transformers' own `eager` and `sdpa` copy each key head once per query head of its group (`repeat_kv`) in all but the
simplest case, and `sdpa` knows no soft-capping. The self-test compares this with the model's own before it is used.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

GROUPED_QUERY_ATTENTION = "millm_gqa"


def grouped_query_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_options: object,
) -> tuple[Tensor, None]:
    """query `[B, H, T, D]`, key and value `[B, G, S, D]`, additive mask `[B, 1, T, S]` → `[B, T, H, D]`.

    softmax(softcap·tanh(q·kᵀ·scaling / softcap) + mask)·v, each of the G key heads shared by H/G query heads.
    """
    batch, heads, tokens, depth = query.shape
    scaling = depth**-0.5 if scaling is None else scaling
    if tokens > 1 and softcap is None:
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=key.shape[1] != heads
        )
        return out.transpose(1, 2).contiguous(), None
    groups = key.shape[1]
    # [B, G, H/G·T, D]: every query that shares a key head in one matrix product
    grouped = query.reshape(batch, groups, (heads // groups) * tokens, depth)
    scores = torch.matmul(grouped, key.transpose(2, 3)) * scaling  # [B, G, H/G·T, S]
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        shape = scores.shape
        scores = (scores.view(batch, groups, -1, tokens, shape[-1]) + attention_mask[:, :, None]).view(shape)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = torch.matmul(weights, value).view(batch, heads, tokens, value.shape[3])
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED_QUERY_ATTENTION, grouped_query_attention)
AttentionMaskInterface.register(GROUPED_QUERY_ATTENTION, eager_mask)
