"""The blocks that are open, as one request would say it: one steering, and one row of each SAE's table.

Blocks inside one another add up. What one request cannot ask is refused as it would be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from millm.engine.attach import open_for
from millm.engine.messages import Watch
from millm.errors import InvalidSteering, SaeMismatch
from millm.notebook.fitting import facts
from millm.notebook.use import Use
from millm.profiles.contract import ActivationsRequest, SteeringRequest
from millm.profiles.resolving import check_index, resolve
from millm.sae.steering import Steering
from millm.sae.tap_step import TapRow
from millm.state import AttachedSae


@dataclass(frozen=True)
class Plan:
    steering: Steering | None
    rows: dict[str, TapRow]
    """By hook point."""
    special_ids: frozenset[int]

    @property
    def needs_prompt(self) -> bool:
        """Does it matter where the prompt ends?"""
        steered = self.steering is not None and self.steering.positions != "all"
        return steered or any(row.watch and row.watch.tokens != "all" for row in self.rows.values())


def plan(uses: Sequence[Use]) -> Plan:
    """Raises InvalidSteering or SaeMismatch."""
    places = _places(uses)
    saes = {use.name: _attached(use) for use in places.values()}
    steering = resolve(saes, _request(uses))
    features = {tap.sae: tap.features for tap in steering.taps} if steering else {}
    watches = _watches(uses, saes)
    rows = {point: TapRow(features.get(use.name, ()), watches.get(use.name)) for point, use in places.items()}
    special_ids = frozenset[int]().union(*(use.special_ids for use in uses))
    if steering and steering.skip == "special" and not special_ids:
        raise InvalidSteering("skip 'special' has to know the special tokens: give `tokenizer` as well", param="skip")
    return Plan(steering, rows, special_ids)


def _places(uses: Sequence[Use]) -> dict[str, Use]:
    """The first block at each hook point."""
    places: dict[str, Use] = {}
    for use in uses:
        first = places.setdefault(use.point.name, use)
        if first.sae.folder != use.sae.folder:
            raise SaeMismatch(f"{use.point.name} already has SAE {first.sae.name!r}; a hook point takes one")
    return places


def _attached(use: Use) -> AttachedSae:
    max_acts = {index: label.max_act for index, label in use.sae.labels.items() if label.max_act}
    return AttachedSae(facts(use.sae, open_for(use.sae.folder, use.model), use.point, use.name), max_acts)


def _request(uses: Sequence[Use]) -> SteeringRequest:
    asked = [(use, use.steering) for use in uses if use.steering]
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


def _watches(uses: Sequence[Use], saes: dict[str, AttachedSae]) -> dict[str, Watch]:
    watches: dict[str, Watch] = {}
    for use in uses:
        if use.watch is None:
            continue
        if use.name in watches:
            raise InvalidSteering(f"SAE {use.name!r} is watched already: name all `features` in one block")
        watches[use.name] = _watch(use.name, use.watch, saes[use.name].facts.features)
    return watches


def _watch(name: str, asked: ActivationsRequest, features: int) -> Watch:
    if not asked.features and not asked.top_k:
        raise InvalidSteering("name `features` to watch, or a `top_k` of at least 1")
    for index in asked.features:
        check_index(index, name, features, "features")
    if asked.top_k > features:
        raise InvalidSteering(f"top_k must be at most {features}", param="top_k")
    return Watch(
        sae=name,
        features=asked.features,
        top_k=asked.top_k,
        tokens=asked.tokens,
        when=asked.when,
        sample_every=1 if asked.top_k else None,
    )
