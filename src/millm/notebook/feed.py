"""What one forward pass feeds the decoder: which token stands where in its own row, padding apart."""

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
    ids: list[list[int]] | None
    """[B][T]; None where the model was given embeddings and nobody knows of which tokens."""
    positions: list[list[int]]
    """[B][T] in prompt + completion, PADDING at padding."""
    is_first_pass: bool
    """Nothing was fed before."""

    @property
    def start_positions(self) -> list[int]:
        """The position that the first column of each row would have if the padding before it counted."""
        return [_start_position(row) for row in self.positions]

    @property
    def width(self) -> int:
        return len(self.positions[0])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row so far, this pass included."""
        return [max(row, default=PADDING) + 1 for row in self.positions]


def read_forward_input(decoder_args: Mapping[str, Any], model_args: Mapping[str, Any]) -> ForwardInput:
    """`inner`: what the decoder's forward is given, by name; `outer`: the whole model's, if it was asked.

    Raises InvalidRequest for padding that cannot be told.
    """
    ids = decoder_args.get("input_ids")
    ids = model_args.get("input_ids") if ids is None else ids
    fed = decoder_args.get("inputs_embeds") if ids is None else ids
    if fed is None:
        raise InvalidRequest("this pass has neither `input_ids` nor `inputs_embeds`, so its tokens cannot be counted")
    rows, width = fed.shape[:2]
    past = _cached_length(decoder_args)
    positions = _token_positions(_attention_mask(decoder_args, model_args), past, rows, width)
    return ForwardInput(None if ids is None else ids.tolist(), positions, is_first_pass=past == 0)


def _attention_mask(decoder_args: Mapping[str, Any], model_args: Mapping[str, Any]) -> object:
    """The plain one, of the two."""
    mask = decoder_args.get("attention_mask")
    is_plain = isinstance(mask, Tensor) and mask.dim() == 2
    return mask if is_plain or not model_args else model_args.get("attention_mask")


def _cached_length(decoder_args: Mapping[str, Any]) -> int:
    """Columns that are in the cache already."""
    cache = next((decoder_args[name] for name in CACHE_NAMES if decoder_args.get(name) is not None), None)
    if cache is None:
        return 0
    if not hasattr(cache, "get_seq_length"):
        raise InvalidRequest(f"a cache of {type(cache).__name__} does not say how much is in it; give another one")
    return int(cache.get_seq_length())


def _token_positions(mask: object, past: int, rows: int, width: int) -> list[list[int]]:
    if mask is None:
        return [list(range(past, past + width)) for _ in range(rows)]
    if not isinstance(mask, Tensor) or mask.shape != (rows, past + width):
        raise InvalidRequest(
            f"the attention mask has to be [batch, tokens] = [{rows}, {past + width}] here, so that padding can be told"
        )
    attended = mask != 0
    counted = attended.long().cumsum(-1) - 1
    positions: list[list[int]] = torch.where(attended, counted, PADDING)[:, past:].tolist()
    if any(not _is_contiguous(row) for row in positions):
        raise InvalidRequest("the attention mask has padding between tokens of one row; put it before or behind them")
    return positions


def _is_contiguous(row: Sequence[int]) -> bool:
    first = next((column for column, position in enumerate(row) if position != PADDING), len(row))
    tokens = [position for position in row if position != PADDING]
    return list(row[first : first + len(tokens)]) == tokens


def _start_position(row: Sequence[int]) -> int:
    return next((position - column for column, position in enumerate(row) if position != PADDING), -len(row))
