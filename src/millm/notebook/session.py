"""A model with open blocks: steering hooks on its layers, and the plan that all open blocks add up to.

A session starts with the first block and ends with the last, without a trace on the model.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from millm.engine.core import open_sae
from millm.engine.messages import SaeFacts
from millm.errors import InvalidRequest, InvalidSteering, MillmError, SaeMismatch
from millm.loaded import AttachedSae
from millm.notebook.forward_input import PADDING, ForwardInput, read_forward_input
from millm.notebook.sae import SAE, is_paused
from millm.profiles.resolve import check_index, resolve_steering
from millm.profiles.schema import ActivationsRequest, SteeringRequest
from millm.sae.hook_step import HookOutput, HookRow, TokenSpan
from millm.sae.hooks import HookPoint
from millm.sae.steering import Steering, Watch
from millm.sae.steering_hook import SteeringHook


class PassObserver(Protocol):
    """Receives every pass of a block's SAE."""

    def start_batch(self, rows: int) -> None:
        """New sequences start."""

    def record_pass(
        self, forward_input: ForwardInput, prompt_lengths: list[int], steer_mask: list[list[bool]], output: HookOutput
    ) -> None:
        """`prompt_lengths`: in tokens, per row; `steer_mask [B][T]`: where the steering applied."""


@dataclass(frozen=True, eq=False)
class SteeringBlock:
    """One `with` block: an SAE at a hook point, to steer or to watch."""

    model: PreTrainedModel
    sae: SAE
    point: HookPoint
    observer: PassObserver
    steering: SteeringRequest | None = None
    watch: ActivationsRequest | None = None
    special_ids: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """Unique name of the SAE in messages: SAEs of two layers may have the same name."""
        return f"{self.sae.name} at {self.point.name}"


@dataclass(frozen=True)
class SessionPlan:
    """The open blocks as one request: one steering, and one row of each SAE's table."""

    steering: Steering | None
    rows: dict[str, HookRow]  # by hook point
    special_ids: frozenset[int]

    @property
    def needs_prompt(self) -> bool:
        """Whether the plan depends on where the prompt ends."""
        steers_part = self.steering is not None and self.steering.positions != "all"
        return steers_part or any(row.watch and row.watch.tokens != "all" for row in self.rows.values())


def build_session_plan(blocks: Sequence[SteeringBlock]) -> SessionPlan:
    """Nested blocks add up; a combination that one request cannot express is rejected as in a request.

    Raises InvalidSteering or SaeMismatch.
    """
    first_blocks = _blocks_by_hook_point(blocks)
    saes = {block.name: _attached_sae(block) for block in first_blocks.values()}
    steering = resolve_steering(saes, _combined_request(blocks))
    features = {sae.sae: sae.features for sae in steering.by_sae} if steering else {}
    watches = _watches_by_sae(blocks, saes)
    rows = {
        point: HookRow(features.get(block.name, ()), watches.get(block.name)) for point, block in first_blocks.items()
    }
    special_ids = frozenset[int]().union(*(block.special_ids for block in blocks))
    if steering and steering.skip == "special" and not special_ids:
        raise InvalidSteering("skip 'special' needs the special tokens: give `tokenizer` as well", param="skip")
    return SessionPlan(steering, rows, special_ids)


def _blocks_by_hook_point(blocks: Sequence[SteeringBlock]) -> dict[str, SteeringBlock]:
    """The first block at each hook point."""
    first_blocks: dict[str, SteeringBlock] = {}
    for block in blocks:
        first = first_blocks.setdefault(block.point.name, block)
        if first.sae.folder != block.sae.folder:
            raise SaeMismatch(f"{block.point.name} already has SAE {first.sae.name!r}; a hook point takes one")
    return first_blocks


def _attached_sae(block: SteeringBlock) -> AttachedSae:
    """The block's SAE as the server describes an attached one, without values that were not measured."""
    sae = open_sae(block.sae.folder, block.model)
    facts = SaeFacts(
        sae=block.name,
        architecture=sae.config.architecture,
        layer=block.point.layer,
        hook_point=block.point.name,
        features=sae.config.d_sae,
        steerable=sae.config.steerable,
        exclude_special_tokens=sae.config.exclude_special_tokens,
        residual_norm=block.sae.residual_norm or float("nan"),
        variance_explained=None,
        l0=float("nan"),
        warnings=(),
        sha256=block.sae.sha256,
    )
    return AttachedSae(facts, {index: label.max_act for index, label in block.sae.labels.items() if label.max_act})


def _combined_request(blocks: Sequence[SteeringBlock]) -> SteeringRequest:
    requests = [(block.name, block.steering) for block in blocks if block.steering]
    if not requests:
        return SteeringRequest()
    _, first = requests[0]
    if any((steering.positions, steering.skip) != (first.positions, first.skip) for _, steering in requests):
        raise InvalidSteering("nested blocks are one steering: give them the same `positions` and the same `skip`")
    features = tuple(
        feature.model_copy(update={"sae": name}) for name, steering in requests for feature in steering.features
    )
    return first.model_copy(update={"features": features})


def _watches_by_sae(blocks: Sequence[SteeringBlock], saes: dict[str, AttachedSae]) -> dict[str, Watch]:
    watches: dict[str, Watch] = {}
    for block in blocks:
        if block.watch is None:
            continue
        if block.name in watches:
            raise InvalidSteering(f"SAE {block.name!r} is watched already: name all `features` in one block")
        watches[block.name] = _build_watch(block.name, block.watch, saes[block.name].facts.features)
    return watches


def _build_watch(name: str, request: ActivationsRequest, features: int) -> Watch:
    if not request.features and not request.top_k:
        raise InvalidSteering("name `features` to watch, or a `top_k` of at least 1")
    for index in request.features:
        check_index(index, name, features, "features")
    if request.top_k > features:
        raise InvalidSteering(f"top_k must be at most {features}", param="top_k")
    return Watch(
        sae=name,
        features=request.features,
        top_k=request.top_k,
        tokens=request.tokens,
        when=request.when,
        sample_every=1 if request.top_k else None,
    )


@dataclass
class AttachedHook:
    """A registered steering hook, and the row of its table that all rows of a batch use."""

    hook: SteeringHook
    handle: RemovableHandle
    table_row: int = 0


class SteeringSession:
    """One model with its open blocks; every pass through its decoder is prepared and recorded."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
        self.blocks: list[SteeringBlock] = []
        self._plan = SessionPlan(None, {}, frozenset())
        self._hooks: dict[str, AttachedHook] = {}
        self._handles: list[RemovableHandle] = []
        self._known_prompt_lengths: list[int] | None = None
        """Tokens of each row's prompt; None when its first pass was not seen."""
        self._model_args: dict[str, Any] = {}
        """Arguments of the complete model: a vision model passes embeddings and its own masks to its decoder."""
        self._current_pass: tuple[ForwardInput, list[list[bool]]] | None = None

    def open(self, block: SteeringBlock) -> None:
        """Raises InvalidSteering, SaeMismatch or InsufficientMemory before any change."""
        blocks = [*self.blocks, block]
        self._apply(build_session_plan(blocks), blocks)
        self.blocks = blocks
        if not self._handles:
            self._handles = [
                self._model.register_forward_pre_hook(self._record_model_args, with_kwargs=True),
                self._decoder.register_forward_pre_hook(self._before_pass, with_kwargs=True),
                self._decoder.register_forward_hook(self._after_pass, always_call=True),
            ]

    def close(self, block: SteeringBlock) -> None:
        blocks = [other for other in self.blocks if other is not block]
        self._apply(build_session_plan(blocks), blocks)
        self.blocks = blocks
        if not blocks:
            for handle in self._handles:
                handle.remove()
            self._handles = []

    def _apply(self, new_plan: SessionPlan, blocks: Sequence[SteeringBlock]) -> None:
        """Acquire new rows first, so that an error leaves the session unchanged."""
        added = [name for name in new_plan.rows if name not in self._hooks]
        try:
            for block in blocks:
                self._attach(block)
            rows = self._acquire_rows(new_plan.rows)
        except MillmError:
            self._detach(added)
            raise
        for attached in self._hooks.values():
            if attached.table_row:
                attached.hook.release(attached.table_row)
        self._detach([name for name in self._hooks if name not in new_plan.rows])
        for name, row in rows.items():
            self._hooks[name].table_row = row
        self._plan = new_plan

    def _attach(self, block: SteeringBlock) -> None:
        if block.point.name not in self._hooks:
            sae = open_sae(block.sae.folder, self._model)
            parameter = next(block.point.module.parameters(), None)
            # The module's own device, for models on several devices.
            hook = SteeringHook(sae, self._model.device if parameter is None else parameter.device)
            self._hooks[block.point.name] = AttachedHook(hook, block.point.register(hook))

    def _acquire_rows(self, hook_rows: dict[str, HookRow]) -> dict[str, int]:
        rows: dict[str, int] = {}
        try:
            for name, row in hook_rows.items():
                rows[name] = self._hooks[name].hook.acquire(row)
        except MillmError:
            for name, index in rows.items():
                self._hooks[name].hook.release(index)
            raise
        return rows

    def _detach(self, names: Sequence[str]) -> None:
        for name in names:
            if attached := self._hooks.pop(name, None):
                attached.handle.remove()

    def _record_model_args(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._model_args = {} if model is self._decoder else _arguments_by_name(model, args, kwargs)

    def _before_pass(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_paused(self._model):
            return
        forward_input = read_forward_input(_arguments_by_name(decoder, args, kwargs), self._model_args)
        self._update_prompt_lengths(forward_input)
        steer_mask = self._steer_mask(forward_input)
        spans = [
            TokenSpan(start, forward_input.width, prompt)
            for start, prompt in zip(forward_input.start_positions, self._prompt_lengths, strict=True)
        ]
        for attached in self._hooks.values():
            attached.hook.prepare([attached.table_row] * len(spans), steer_mask, spans)
        self._current_pass = (forward_input, steer_mask)

    def _after_pass(self, _decoder: nn.Module, _args: tuple[Any, ...], output: object) -> None:
        current, self._current_pass, self._model_args = self._current_pass, None, {}
        if current is not None and output is not None:
            forward_input, steer_mask = current
            for block in self.blocks:
                hook_output = self._hooks[block.point.name].hook.output
                block.observer.record_pass(forward_input, self._prompt_lengths, steer_mask, hook_output)
        for attached in self._hooks.values():
            attached.hook.prepare((), (), ())

    def _update_prompt_lengths(self, forward_input: ForwardInput) -> None:
        """The first pass is the prompt; each later pass is one token."""
        rows = len(forward_input.positions)
        if forward_input.is_first_pass:
            self._known_prompt_lengths = forward_input.lengths
            for block in self.blocks:
                block.observer.start_batch(rows)
        elif self._known_prompt_lengths is None or len(self._known_prompt_lengths) != rows or forward_input.width > 1:
            if self._plan.needs_prompt:
                raise InvalidRequest(
                    "this pass continues a cache that was filled elsewhere or in chunks, so the end of the prompt is"
                    " unknown; use all positions and tokens, or run the prompt in one pass inside the block"
                )
            self._known_prompt_lengths = forward_input.lengths

    @property
    def _prompt_lengths(self) -> list[int]:
        return self._known_prompt_lengths or []

    def _steer_mask(self, forward_input: ForwardInput) -> list[list[bool]]:
        """[B][T]: whether the token is steered."""
        steering = self._plan.steering
        if steering is None:
            return [[False] * forward_input.width for _ in forward_input.positions]
        if steering.skip == "special" and forward_input.ids is None:
            raise InvalidSteering("skip 'special' needs the tokens: give the model `input_ids`", param="skip")
        ids = forward_input.ids or [[PADDING] * forward_input.width for _ in forward_input.positions]
        return [
            [
                position != PADDING and steering.applies(position, token, prompt, self._plan.special_ids)
                for position, token in zip(row, tokens, strict=True)
            ]
            for row, tokens, prompt in zip(forward_input.positions, ids, self._prompt_lengths, strict=True)
        ]


_sessions: WeakKeyDictionary[nn.Module, SteeringSession] = WeakKeyDictionary()


@contextmanager
def open_block(block: SteeringBlock) -> Iterator[None]:
    session = _sessions.get(block.model) or SteeringSession(block.model)
    session.open(block)
    _sessions[block.model] = session
    try:
        yield
    finally:
        session.close(block)
        if not session.blocks:
            _sessions.pop(block.model, None)


def _arguments_by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    arguments = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    return {**arguments, **arguments.pop("kwargs", {})}
