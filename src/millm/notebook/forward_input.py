"""The tokens of one forward pass: ids and positions in each row of the batch, without padding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from millm.engine.model_runner import CACHE_NAMES
from millm.errors import InvalidRequest

PADDING = -1


@dataclass(frozen=True)
class ForwardInput:
    """B rows of T columns."""

    ids: list[list[int]] | None  # [B][T]; None for embeddings without token ids
    positions: list[list[int]]  # [B][T] in prompt + completion; PADDING for padding
    is_first_pass: bool  # True when the cache is empty

    @property
    def start_positions(self) -> list[int]:
        """Position of each row's first column, with the padding before its tokens counted."""
        return [
            next((position - column for column, position in enumerate(row) if position != PADDING), -len(row))
            for row in self.positions
        ]

    @property
    def width(self) -> int:
        return len(self.positions[0])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row so far, this pass included."""
        return [max(row, default=PADDING) + 1 for row in self.positions]


def read_forward_input(decoder_args: Mapping[str, Any], model_args: Mapping[str, Any]) -> ForwardInput:
    """From the arguments by name of the decoder's forward, and of the complete model's if that was called.

    Raises InvalidRequest when padding cannot be located.
    """
    ids = decoder_args.get("input_ids")
    ids = model_args.get("input_ids") if ids is None else ids
    tokens = decoder_args.get("inputs_embeds") if ids is None else ids
    if tokens is None:
        raise InvalidRequest("this pass has neither `input_ids` nor `inputs_embeds`, so its tokens cannot be counted")
    rows, width = tokens.shape[:2]
    past = _cached_length(decoder_args)
    positions = _token_positions(_attention_mask(decoder_args, model_args), past, rows, width)
    return ForwardInput(None if ids is None else ids.tolist(), positions, is_first_pass=past == 0)


def _attention_mask(decoder_args: Mapping[str, Any], model_args: Mapping[str, Any]) -> object:
    """The decoder's mask if it is [batch, tokens], else the complete model's."""
    mask = decoder_args.get("attention_mask")
    is_plain = isinstance(mask, Tensor) and mask.dim() == 2
    return mask if is_plain or not model_args else model_args.get("attention_mask")


def _cached_length(decoder_args: Mapping[str, Any]) -> int:
    """Columns in the cache."""
    cache = next((decoder_args[name] for name in CACHE_NAMES if decoder_args.get(name) is not None), None)
    if cache is None:
        return 0
    if not hasattr(cache, "get_seq_length"):
        raise InvalidRequest(f"a cache of {type(cache).__name__} has no `get_seq_length`; use another one")
    return int(cache.get_seq_length())


def _token_positions(mask: object, past: int, rows: int, width: int) -> list[list[int]]:
    if mask is None:
        return [list(range(past, past + width)) for _ in range(rows)]
    if not isinstance(mask, Tensor) or mask.shape != (rows, past + width):
        raise InvalidRequest(
            f"the attention mask must be [batch, tokens] = [{rows}, {past + width}] here, to locate the padding"
        )
    is_token = mask != 0
    indices = is_token.long().cumsum(-1) - 1
    positions: list[list[int]] = torch.where(is_token, indices, PADDING)[:, past:].tolist()
    if any(not _is_contiguous(row) for row in positions):
        raise InvalidRequest("the attention mask has padding between tokens of one row; put it before or after them")
    return positions


def _is_contiguous(row: Sequence[int]) -> bool:
    first = next((column for column, position in enumerate(row) if position != PADDING), len(row))
    tokens = [position for position in row if position != PADDING]
    return list(row[first : first + len(tokens)]) == tokens
