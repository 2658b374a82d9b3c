"""The blocks that are open, as one request would say it: one steering, and one row of each SAE's table.

Blocks inside one another add up. What one request cannot ask is refused as it would be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millm.engine.core import open_sae
from millm.errors import InvalidSteering, SaeMismatch
from millm.loaded import AttachedSae
from millm.notebook.fitting import sae_facts
from millm.notebook.use import SteeringBlock
from millm.profiles.resolve import check_index, resolve_steering
from millm.profiles.schema import ActivationsRequest, SteeringRequest
from millm.sae.hook_step import HookRow
from millm.sae.steering import Steering, Watch


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
