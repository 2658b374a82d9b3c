"""A model with blocks open on it: their taps are on its layers, and every pass through its decoder goes by them.

It lives from the first block's beginning to the last one's end, and leaves nothing behind.

The blocks that are open, as one request would say it: one steering, and one row of each SAE's table.

Blocks inside one another add up. What one request cannot ask is refused as it would be there.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from millm.engine.core import open_sae
from millm.errors import InvalidRequest, InvalidSteering, MillmError, SaeMismatch
from millm.loaded import AttachedSae
from millm.notebook.hooks import PADDING, ForwardInput, SteeringBlock, read_forward_input, sae_facts
from millm.notebook.sae import is_paused
from millm.profiles.resolve import check_index, resolve_steering
from millm.profiles.schema import ActivationsRequest, SteeringRequest
from millm.sae.hook_step import HookRow, TokenSpan
from millm.sae.steering import Steering, Watch
from millm.sae.steering_hook import SteeringHook


@dataclass(frozen=True)
class SessionPlan:
    steering: Steering | None
    rows: dict[str, HookRow]
    """By hook point."""
    special_ids: frozenset[int]

    @property
    def needs_prompt(self) -> bool:
        """Does it matter where the prompt ends?"""
        steered = self.steering is not None and self.steering.positions != "all"
        return steered or any(row.watch and row.watch.tokens != "all" for row in self.rows.values())


def build_session_plan(blocks: Sequence[SteeringBlock]) -> SessionPlan:
    """Raises InvalidSteering or SaeMismatch."""
    places = _blocks_by_hook_point(blocks)
    saes = {use.name: _attached_sae(use) for use in places.values()}
    steering = resolve_steering(saes, _combined_request(blocks))
    features = {tap.sae: tap.features for tap in steering.by_sae} if steering else {}
    watches = _watches_by_sae(blocks, saes)
    rows = {point: HookRow(features.get(use.name, ()), watches.get(use.name)) for point, use in places.items()}
    special_ids = frozenset[int]().union(*(use.special_ids for use in blocks))
    if steering and steering.skip == "special" and not special_ids:
        raise InvalidSteering("skip 'special' has to know the special tokens: give `tokenizer` as well", param="skip")
    return SessionPlan(steering, rows, special_ids)


def _blocks_by_hook_point(blocks: Sequence[SteeringBlock]) -> dict[str, SteeringBlock]:
    """The first block at each hook point."""
    places: dict[str, SteeringBlock] = {}
    for use in blocks:
        first = places.setdefault(use.point.name, use)
        if first.sae.folder != use.sae.folder:
            raise SaeMismatch(f"{use.point.name} already has SAE {first.sae.name!r}; a hook point takes one")
    return places


def _attached_sae(block: SteeringBlock) -> AttachedSae:
    max_acts = {index: label.max_act for index, label in block.sae.labels.items() if label.max_act}
    return AttachedSae(sae_facts(block.sae, open_sae(block.sae.folder, block.model), block.point, block.name), max_acts)


def _combined_request(blocks: Sequence[SteeringBlock]) -> SteeringRequest:
    asked = [(use, use.steering) for use in blocks if use.steering]
    if not asked:
        return SteeringRequest()
    _, first = asked[0]
    if any((steering.positions, steering.skip) != (first.positions, first.skip) for _, steering in asked):
        raise InvalidSteering(
            "blocks inside one another are one steering: give them the same `positions` and the same `skip`"
        )
    features = tuple(
        feature.model_copy(update={"sae": use.name}) for use, steering in asked for feature in steering.features
    )
    return first.model_copy(update={"features": features})


def _watches_by_sae(blocks: Sequence[SteeringBlock], saes: dict[str, AttachedSae]) -> dict[str, Watch]:
    watches: dict[str, Watch] = {}
    for use in blocks:
        if use.watch is None:
            continue
        if use.name in watches:
            raise InvalidSteering(f"SAE {use.name!r} is watched already: name all `features` in one block")
        watches[use.name] = _build_watch(use.name, use.watch, saes[use.name].facts.features)
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
    """A tap on its hook point, and the row of its table that all rows of a batch use."""

    hook: SteeringHook
    handle: RemovableHandle
    table_row: int = 0


class SteeringSession:
    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
        self._blocks: list[SteeringBlock] = []
        self._plan = SessionPlan(None, {}, frozenset())
        self._hooks: dict[str, AttachedHook] = {}
        self._handles: list[RemovableHandle] = []
        self._known_prompt_lengths: list[int] | None = None
        """Tokens of each row's prompt; None: its beginning was not seen."""
        self._model_args: dict[str, Any] = {}
        """What the whole model was given, where that is more than its decoder gets: a model that also sees hands on
        embeddings, and masks of its own making."""
        self._current_pass: tuple[ForwardInput, list[list[bool]]] | None = None

    @property
    def is_empty(self) -> bool:
        return not self._blocks

    def open(self, block: SteeringBlock) -> None:
        """Raises InvalidSteering, SaeMismatch or InsufficientMemory, and then nothing has changed."""
        uses = [*self._blocks, block]
        self._apply(build_session_plan(uses), uses)
        self._blocks = uses
        if not self._handles:
            self._handles = self._register_model_hooks()

    def close(self, block: SteeringBlock) -> None:
        uses = [one for one in self._blocks if one is not block]
        self._apply(build_session_plan(uses), uses)
        self._blocks = uses
        if not uses:
            for handle in self._handles:
                handle.remove()
            self._handles = []

    def _apply(self, new_plan: SessionPlan, blocks: Sequence[SteeringBlock]) -> None:
        """New rows first, so that what cannot be had leaves everything as it was."""
        added = [name for name in new_plan.rows if name not in self._hooks]
        try:
            for use in blocks:
                self._attach(use)
            rows = self._acquire_rows(new_plan.rows)
        except MillmError:
            self._detach(added)
            raise
        for place in self._hooks.values():
            if place.table_row:
                place.hook.release(place.table_row)
        self._detach([name for name in self._hooks if name not in new_plan.rows])
        for name, row in rows.items():
            self._hooks[name].table_row = row
        self._plan = new_plan

    def _attach(self, block: SteeringBlock) -> None:
        if block.point.name not in self._hooks:
            tap = SteeringHook(open_sae(block.sae.folder, self._model), _module_device(block.point.module, self._model))
            self._hooks[block.point.name] = AttachedHook(tap, block.point.register(tap))

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
            if place := self._hooks.pop(name, None):
                place.handle.remove()

    # ---------------------------------------------------------------------------------------------- in the pass

    def _register_model_hooks(self) -> list[RemovableHandle]:
        noting = self._model.register_forward_pre_hook(self._record_model_args, with_kwargs=True)
        before = self._decoder.register_forward_pre_hook(self._before_pass, with_kwargs=True)
        after = self._decoder.register_forward_hook(self._after_pass, always_call=True)
        return [noting, before, after]

    def _record_model_args(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._model_args = {} if model is self._decoder else _arguments_by_name(model, args, kwargs)

    def _before_pass(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_paused(self._model):
            return
        found = read_forward_input(_arguments_by_name(decoder, args, kwargs), self._model_args)
        self._update_prompt_lengths(found)
        keep = self._steer_mask(found)
        spans = [
            TokenSpan(start, found.width, prompt)
            for start, prompt in zip(found.start_positions, self._prompt_lengths, strict=True)
        ]
        for place in self._hooks.values():
            place.hook.prepare([place.table_row] * len(spans), keep, spans)
        self._current_pass = (found, keep)

    def _after_pass(self, _decoder: nn.Module, _args: tuple[Any, ...], output: object) -> None:
        fed, self._current_pass, self._model_args = self._current_pass, None, {}
        if fed is not None and output is not None:
            for use in self._blocks:
                use.observer.record_pass(fed[0], self._prompt_lengths, fed[1], self._hooks[use.point.name].hook.output)
        for place in self._hooks.values():
            place.hook.prepare((), (), ())

    def _update_prompt_lengths(self, forward_input: ForwardInput) -> None:
        """Where the prompt of each row ends: with the first pass, and each one after it feeds a token."""
        rows = len(forward_input.positions)
        if forward_input.is_first_pass:
            self._known_prompt_lengths = forward_input.lengths
            for use in self._blocks:
                use.observer.start_batch(rows)
        elif self._known_prompt_lengths is None or len(self._known_prompt_lengths) != rows or forward_input.width > 1:
            if self._plan.needs_prompt:
                raise InvalidRequest(
                    "this pass goes on from a cache that was filled elsewhere or in pieces, so nobody knows where the"
                    " prompt ends; ask for all positions and tokens, or feed the prompt in one pass inside the block"
                )
            self._known_prompt_lengths = forward_input.lengths

    @property
    def _prompt_lengths(self) -> list[int]:
        return self._known_prompt_lengths or []

    def _steer_mask(self, forward_input: ForwardInput) -> list[list[bool]]:
        """[B][T]: is the token steered?"""
        steering = self._plan.steering
        if steering is None:
            return [[False] * forward_input.width for _ in forward_input.positions]
        if steering.skip == "special" and forward_input.ids is None:
            raise InvalidSteering("skip 'special' has to know the tokens: give the model `input_ids`", param="skip")
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
        if session.is_empty:
            _sessions.pop(block.model, None)


def _arguments_by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    return {**given, **given.pop("kwargs", {})}


def _module_device(module: nn.Module, model: PreTrainedModel) -> torch.device:
    """Where the hook's tensor is, also in a model that is spread over several devices."""
    parameter = next(module.parameters(), None)
    return model.device if parameter is None else parameter.device
