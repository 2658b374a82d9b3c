"""The `with` blocks of the library: `steered(model, sae, {135: 60.0})` and `watching(model, sae, features=[135])`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from millm.engine.core import check_encoder_supported, check_width, open_sae, sae_hook_point
from millm.errors import InvalidRequest, InvalidSteering, SaeModelMismatch
from millm.notebook.forward_input import PADDING, ForwardInput
from millm.notebook.sae import SAE, pause_hooks
from millm.notebook.session import SteeringBlock, open_block
from millm.profiles.schema import ActivationsRequest, SteeringRequest
from millm.protocol.errors import error_sentence
from millm.sae.base_models import model_mismatch
from millm.sae.hook_step import HookOutput, TokenSpan, offsets_to_watch
from millm.sae.hooks import HookPoint
from millm.sae.steering import Positions, Skip, Watch

RequestModel = TypeVar("RequestModel", bound=BaseModel)
Features = Mapping[int, float] | Iterable[Mapping[str, Any]]
"""`{index: strength}`, or the API's objects: `[{"index": 135, "strength": 0.2, "unit": "norm", "mode": "clamp"}]`."""
Tokens = Literal["generated", "prompt", "all"]
When = Literal["before", "after"]


class Effect:
    """The effect on the last batch: the server's receipt, over all rows."""

    def __init__(self) -> None:
        self._ratios: list[dict[int, float]] = []
        """Per row: position → ‖delta‖ / ‖x‖, for steered positions; a repeated pass overwrites."""

    @property
    def tokens_steered(self) -> int:
        """Positions at which a delta was added."""
        return sum(map(len, self._ratios))

    @property
    def delta_norm_ratio(self) -> float:
        """Mean of ‖delta‖ / ‖x‖ over these positions."""
        return sum(sum(row.values()) for row in self._ratios) / max(self.tokens_steered, 1)

    def start_batch(self, rows: int) -> None:
        self._ratios = [{} for _ in range(rows)]

    def record_pass(
        self, forward_input: ForwardInput, _prompt_lengths: list[int], steer_mask: list[list[bool]], output: HookOutput
    ) -> None:
        if output.ratio is None:
            return
        if len(self._ratios) != len(steer_mask):
            self.start_batch(len(steer_mask))
        for by_position, positions, mask, ratios in zip(
            self._ratios, forward_input.positions, steer_mask, output.ratio.tolist(), strict=True
        ):
            steered_tokens = zip(positions, mask, ratios, strict=True)
            by_position.update((position, ratio) for position, is_steered, ratio in steered_tokens if is_steered)

    def __repr__(self) -> str:
        return f"Effect(tokens_steered={self.tokens_steered}, delta_norm_ratio={self.delta_norm_ratio:.4f})"


@contextmanager
def steered(
    model: PreTrainedModel,
    sae: SAE,
    features: Features,
    *,
    positions: Positions = "all",
    skip: Skip | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Iterator[Effect]:
    """Steer every pass through `model`, also in `generate`, exactly as the server does (docs/steering.md).

    `features`: `{index: strength}`, or the API's objects with `unit`, `mode` and `max_act`. `positions`, `skip`: as in
    a request; `skip="special"` needs the `tokenizer`. Nested blocks, on one SAE or several, add up.
    Raises InvalidSteering, SaeMismatch, SaeModelMismatch or InvalidSae, before any change to the model.
    """
    steering = _parse_steering(sae, features, positions=positions, skip=skip)
    effect = Effect()
    point = _find_sae_hook_point(model, sae)
    added_tokens = tokenizer.added_tokens_decoder if tokenizer else {}
    special_ids = frozenset(id for id, token in added_tokens.items() if token.special)
    with open_block(SteeringBlock(model, sae, point, effect, steering=steering, special_ids=special_ids)):
        yield effect


@dataclass(frozen=True)
class Row:
    """One text of the batch: T watched tokens in order, without padding."""

    tokens: list[int | None]  # token ids; None for embeddings
    positions: list[int]  # in prompt + completion
    activations: Tensor  # [T, features], float32 on the CPU, in units of the residual stream
    top_features: Tensor  # [T, top_k], the most active first
    top_activations: Tensor  # [T, top_k]


@dataclass(frozen=True)
class _TokenReading:
    token: int | None
    values: Tensor  # [K]
    top_features: Tensor  # [k]
    top_activations: Tensor  # [k]


class Seen(Sequence[Row]):
    """The rows of the current or last batch; a new batch replaces them."""

    def __init__(self, request: ActivationsRequest) -> None:
        self._request = request
        self._rows: list[dict[int, _TokenReading]] = []
        """Per row: position → reading; a repeated pass overwrites."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]  # no slices: a row is a text
        by_position = sorted(self._rows[index].items())
        readings = [reading for _, reading in by_position]
        return Row(
            tokens=[reading.token for reading in readings],
            positions=[position for position, _ in by_position],
            activations=_stack([reading.values for reading in readings], len(self._request.features)),
            top_features=_stack([reading.top_features for reading in readings], self._request.top_k).long(),
            top_activations=_stack([reading.top_activations for reading in readings], self._request.top_k),
        )

    def start_batch(self, rows: int) -> None:
        self._rows = [{} for _ in range(rows)]

    def record_pass(
        self, forward_input: ForwardInput, prompt_lengths: list[int], _steer_mask: list[list[bool]], output: HookOutput
    ) -> None:
        if len(self._rows) != len(forward_input.positions):
            self.start_batch(len(forward_input.positions))
        values = _to_cpu(output.watched, forward_input, len(self._request.features))
        top_features = _to_cpu(output.top_indices, forward_input, self._request.top_k)
        top_activations = _to_cpu(output.top_values, forward_input, self._request.top_k)
        for row, positions in enumerate(forward_input.positions):
            for offset in self._watched_offsets(forward_input, row, prompt_lengths[row]):
                if positions[offset] != PADDING:
                    self._rows[row][positions[offset]] = _TokenReading(
                        token=forward_input.ids[row][offset] if forward_input.ids else None,
                        values=values[row, offset],
                        top_features=top_features[row, offset],
                        top_activations=top_activations[row, offset],
                    )

    def _watched_offsets(self, forward_input: ForwardInput, row: int, prompt_length: int) -> list[int]:
        span = TokenSpan(forward_input.start_positions[row], forward_input.width, prompt_length)
        return offsets_to_watch(Watch(sae="", tokens=self._request.tokens), span)


def _to_cpu(table: Tensor | None, forward_input: ForwardInput, width: int) -> Tensor:
    """[B, T, ≥ width] on the device → [B, T, width] on the CPU; zeros without a table."""
    if table is None:
        return torch.zeros(len(forward_input.positions), forward_input.width, width)
    return table[..., :width].detach().cpu()


def _stack(rows: list[Tensor], width: int) -> Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, width)


@contextmanager
def watching(
    model: PreTrainedModel,
    sae: SAE,
    features: Sequence[int] = (),
    *,
    top_k: int = 0,
    tokens: Tokens = "all",
    when: When = "before",
) -> Iterator[Seen]:
    """Record the activations of `features` at each token that runs through the model, and the `top_k` largest of all.

    `when`: before or after the steering of this hook. The last token of `generate` is not an input, so it is missing.
    Raises InvalidSteering, SaeMismatch, SaeModelMismatch or InvalidSae, before any change to the model.
    """
    fields = {"features": _as_list(features), "top_k": top_k, "tokens": tokens, "when": when}
    request = _validate(ActivationsRequest, fields)
    seen = Seen(request)
    with open_block(SteeringBlock(model, sae, _find_sae_hook_point(model, sae), seen, watch=request)):
        yield seen


def _find_sae_hook_point(model: PreTrainedModel, sae: SAE) -> HookPoint:
    """Where the SAE belongs, after the checks that the server makes when it attaches one.

    Raises SaeMismatch, SaeModelMismatch, InvalidSae, or InvalidRequest if `model` is not a Transformers model.
    """
    if not isinstance(model, PreTrainedModel):
        raise InvalidRequest(f"a Transformers model is needed, not {type(model).__name__}", param="model")
    check_encoder_supported(model)
    name = model.name_or_path  # a folder's name does not identify the model in it
    mismatch = None if not name or Path(name).exists() else model_mismatch(sae.config.model_name, name)
    if mismatch and not sae.allow_model_mismatch:
        raise SaeModelMismatch(f"{mismatch}; `SAE.load(…, allow_model_mismatch=True)` allows it")
    autoencoder = open_sae(sae.folder, model)
    point = sae_hook_point(model, autoencoder, sae.hook_point)
    with pause_hooks(model):
        check_width(model, autoencoder, point)
    return point


def _parse_steering(sae: SAE, features: Features, **fields: Any) -> SteeringRequest:
    """Raises InvalidSteering."""
    if isinstance(features, Mapping):
        features = [{"index": index, "strength": strength} for index, strength in features.items()]
    request = _validate(SteeringRequest, {"features": _as_list(features), **fields})
    if any(feature.unit == "norm" for feature in request.features) and sae.residual_norm is None:
        raise InvalidSteering(
            "unit 'norm' needs the residual norm at this hook: call `sae.measure(model, tokenizer)` first, or set"
            " `sae.residual_norm`"
        )
    return request


def _as_list(value: Any) -> Any:
    """A list, or the value itself, which the validation then rejects."""
    return list(value) if isinstance(value, Iterable) else value


def _validate(model_type: type[RequestModel], values: Mapping[str, Any]) -> RequestModel:
    """Checked as the body of a request. Raises InvalidSteering naming the field."""
    try:
        return model_type.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidSteering(error_sentence({**first, "loc": ("body", *first["loc"])})) from error
