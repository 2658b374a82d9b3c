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

from millm.engine.attach import open_for
from millm.errors import InvalidRequest, InvalidSteering, MillmError
from millm.notebook.feed import PADDING, Feed, feed
from millm.notebook.plan import Plan, plan
from millm.notebook.resting import is_resting
from millm.notebook.use import Use
from millm.sae.tap import Tap
from millm.sae.tap_step import Span, TapRow


@dataclass
class Place:
    """A tap on its hook point, and the row of its table that all rows of a batch use."""

    tap: Tap
    handle: RemovableHandle
    row: int = 0


class Session:
    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
        self._uses: list[Use] = []
        self._plan = Plan(None, {}, frozenset())
        self._places: dict[str, Place] = {}
        self._handles: list[RemovableHandle] = []
        self._prompt: list[int] | None = None
        """Tokens of each row's prompt; None: its beginning was not seen."""
        self._outer: dict[str, Any] = {}
        """What the whole model was given, where that is more than its decoder gets: a model that also sees hands on
        embeddings, and masks of its own making."""
        self._pass: tuple[Feed, list[list[bool]]] | None = None

    @property
    def is_over(self) -> bool:
        return not self._uses

    def open(self, use: Use) -> None:
        """Raises InvalidSteering, SaeMismatch or InsufficientMemory, and then nothing has changed."""
        uses = [*self._uses, use]
        self._apply(plan(uses), uses)
        self._uses = uses
        if not self._handles:
            self._handles = self._listen()

    def close(self, use: Use) -> None:
        uses = [one for one in self._uses if one is not use]
        self._apply(plan(uses), uses)
        self._uses = uses
        if not uses:
            for handle in self._handles:
                handle.remove()
            self._handles = []

    def _apply(self, planned: Plan, uses: Sequence[Use]) -> None:
        """New rows first, so that what cannot be had leaves everything as it was."""
        added = [name for name in planned.rows if name not in self._places]
        try:
            for use in uses:
                self._place(use)
            rows = self._acquire(planned.rows)
        except MillmError:
            self._drop(added)
            raise
        for place in self._places.values():
            if place.row:
                place.tap.release(place.row)
        self._drop([name for name in self._places if name not in planned.rows])
        for name, row in rows.items():
            self._places[name].row = row
        self._plan = planned

    def _place(self, use: Use) -> None:
        if use.point.name not in self._places:
            tap = Tap(open_for(use.sae.folder, self._model), _device(use.point.module, self._model))
            self._places[use.point.name] = Place(tap, use.point.register(tap))

    def _acquire(self, wanted: dict[str, TapRow]) -> dict[str, int]:
        rows: dict[str, int] = {}
        try:
            for name, row in wanted.items():
                rows[name] = self._places[name].tap.acquire(row)
        except MillmError:
            for name, index in rows.items():
                self._places[name].tap.release(index)
            raise
        return rows

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            if place := self._places.pop(name, None):
                place.handle.remove()

    # ---------------------------------------------------------------------------------------------- in the pass

    def _listen(self) -> list[RemovableHandle]:
        noting = self._model.register_forward_pre_hook(self._note, with_kwargs=True)
        before = self._decoder.register_forward_pre_hook(self._before, with_kwargs=True)
        after = self._decoder.register_forward_hook(self._after, always_call=True)
        return [noting, before, after]

    def _note(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._outer = {} if model is self._decoder else _by_name(model, args, kwargs)

    def _before(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_resting(self._model):
            return
        found = feed(_by_name(decoder, args, kwargs), self._outer)
        self._follow(found)
        keep = self._keep(found)
        spans = [Span(start, found.width, prompt) for start, prompt in zip(found.starts, self._prompts, strict=True)]
        for place in self._places.values():
            place.tap.prepare([place.row] * len(spans), keep, spans)
        self._pass = (found, keep)

    def _after(self, _decoder: nn.Module, _args: tuple[Any, ...], output: object) -> None:
        fed, self._pass, self._outer = self._pass, None, {}
        if fed is not None and output is not None:
            for use in self._uses:
                use.listener.hear(fed[0], self._prompts, fed[1], self._places[use.point.name].tap.output)
        for place in self._places.values():
            place.tap.prepare((), (), ())

    def _follow(self, found: Feed) -> None:
        """Where the prompt of each row ends: with the first pass, and each one after it feeds a token."""
        rows = len(found.positions)
        if found.begins:
            self._prompt = found.lengths
            for use in self._uses:
                use.listener.begin(rows)
        elif self._prompt is None or len(self._prompt) != rows or found.width > 1:
            if self._plan.needs_prompt:
                raise InvalidRequest(
                    "this pass goes on from a cache that was filled elsewhere or in pieces, so nobody knows where the"
                    " prompt ends; ask for all positions and tokens, or feed the prompt in one pass inside the block"
                )
            self._prompt = found.lengths

    @property
    def _prompts(self) -> list[int]:
        return self._prompt or []

    def _keep(self, found: Feed) -> list[list[bool]]:
        """[B][T]: is the token steered?"""
        steering = self._plan.steering
        if steering is None:
            return [[False] * found.width for _ in found.positions]
        if steering.skip == "special" and found.ids is None:
            raise InvalidSteering("skip 'special' has to know the tokens: give the model `input_ids`", param="skip")
        ids = found.ids or [[PADDING] * found.width for _ in found.positions]
        return [
            [
                position != PADDING and steering.applies(position, token, prompt, self._plan.special_ids)
                for position, token in zip(row, tokens, strict=True)
            ]
            for row, tokens, prompt in zip(found.positions, ids, self._prompts, strict=True)
        ]


_sessions: WeakKeyDictionary[nn.Module, Session] = WeakKeyDictionary()


@contextmanager
def opened(use: Use) -> Iterator[None]:
    session = _sessions.get(use.model) or Session(use.model)
    session.open(use)
    _sessions[use.model] = session
    try:
        yield
    finally:
        session.close(use)
        if session.is_over:
            _sessions.pop(use.model, None)


def _by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    return {**given, **given.pop("kwargs", {})}


def _device(module: nn.Module, model: PreTrainedModel) -> torch.device:
    """Where the hook's tensor is, also in a model that is spread over several devices."""
    parameter = next(module.parameters(), None)
    return model.device if parameter is None else parameter.device
