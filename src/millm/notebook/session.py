"""A model with blocks open on it: their taps are on its layers, and every pass through its decoder goes by them.

It lives from the first block's beginning to the last one's end, and leaves nothing behind.
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
from millm.errors import InvalidRequest, InvalidSteering, MillmError
from millm.notebook.feed import PADDING, ForwardInput, read_forward_input
from millm.notebook.plan import SessionPlan, build_session_plan
from millm.notebook.resting import is_paused
from millm.notebook.use import SteeringBlock
from millm.sae.hook_step import HookRow, TokenSpan
from millm.sae.steering_hook import SteeringHook


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
