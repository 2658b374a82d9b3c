"""What one forward pass feeds the decoder: which token stands where in its own row, padding apart.

What a block is given, checked as the server checks a request's body: the same fields, limits and refusals.

Whether an SAE belongs on a model, and where: the checks that the server makes when it attaches one.

One `with` block: which SAE is used where, what it is asked to do, and who is told what was done.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millm.engine.core import check_encoder_supported, check_width, open_sae, sae_hook_point
from millm.engine.messages import SaeFacts
from millm.engine.model_runner import CACHE_NAMES
from millm.errors import InvalidRequest, InvalidSteering, SaeModelMismatch
from millm.notebook.sae import SAE, pause_hooks
from millm.profiles.schema import ActivationsRequest, SteeringRequest
from millm.protocol.errors import error_sentence
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.base_models import model_mismatch
from millm.sae.hook_step import HookOutput
from millm.sae.hooks import HookPoint

RequestModel = TypeVar("RequestModel", bound=BaseModel)
Features = Mapping[int, float] | Iterable[Mapping[str, Any]]
"""`{index: strength}`, or the API's objects: `[{"index": 135, "strength": 0.2, "unit": "norm", "mode": "clamp"}]`."""


def parse_steering(sae: SAE, features: Features, **fields: Any) -> SteeringRequest:
    """Raises InvalidSteering."""
    asked = validate(SteeringRequest, {"features": _feature_objects(features), **fields})
    if any(feature.unit == "norm" for feature in asked.features) and sae.residual_norm is None:
        raise InvalidSteering(
            "unit 'norm' needs the residual norm at this hook: call `sae.measure(model, tokenizer)` first, or set"
            " `sae.residual_norm`"
        )
    return asked


def _feature_objects(features: Features) -> Any:
    if isinstance(features, Mapping):
        return [{"index": index, "strength": strength} for index, strength in features.items()]
    return as_list(features)


def as_list(value: Any) -> Any:
    """What is no list of any kind stays as it is, to be refused by name."""
    return list(value) if isinstance(value, Iterable) else value


def validate(model_type: type[RequestModel], values: Mapping[str, Any]) -> RequestModel:
    """Raises InvalidSteering naming the field."""
    try:
        return model_type.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidSteering(error_sentence({**first, "loc": ("body", *first["loc"])})) from error


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


class PassObserver(Protocol):
    """Hears of every pass that the block's SAE was part of."""

    def start_batch(self, rows: int) -> None:
        """Other sequences from here on."""

    def record_pass(
        self, forward_input: ForwardInput, prompt_lengths: list[int], steer_mask: list[list[bool]], output: HookOutput
    ) -> None:
        """`prompt`: tokens of each row's; `keep`: where the steering applied."""


@dataclass(frozen=True, eq=False)
class SteeringBlock:
    model: PreTrainedModel
    sae: SAE
    point: HookPoint
    observer: PassObserver
    steering: SteeringRequest | None = None
    watch: ActivationsRequest | None = None
    special_ids: frozenset[int] = field(default=frozenset())

    @property
    def name(self) -> str:
        """What refusals call the SAE: two on two layers may have one name."""
        return f"{self.sae.name} at {self.point.name}"


def special_token_ids(tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    """Ids that yield no text."""
    if tokenizer is None:
        return frozenset()
    return frozenset(id for id, token in tokenizer.added_tokens_decoder.items() if token.special)
