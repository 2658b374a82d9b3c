"""The steering that is active on the server, its undo history, and a cache of the profiles that can be applied."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from millm.profiles.schema import Profile, ProfileFeature, SteeringRequest
from millm.sae.steering import Steering

MAX_UNDO_STEPS = 50
FeatureKey = tuple[str | None, int]
"""(SAE, feature), unique in a steering. None: the only attached SAE."""


def feature_key(feature: ProfileFeature) -> FeatureKey:
    return feature.sae, feature.index


@dataclass(frozen=True)
class ActiveSteeringState:
    """The steering of every request that names none."""

    profile: str | None
    """The profile it was loaded from."""
    request: SteeringRequest
    """All features, including those without effect now."""
    steering: Steering | None = None
    """The effective features, resolved for the engine on activation. None: the base model answers."""
    muted: frozenset[FeatureKey] = frozenset()
    solo: frozenset[FeatureKey] = frozenset()
    """Where not empty, only these have an effect."""
    on: bool = True
    """The master switch."""
    is_modified: bool = False
    """Differs from the profile."""

    def is_effective(self, feature: ProfileFeature) -> bool:
        key = feature_key(feature)
        return self.on and key not in self.muted and (not self.solo or key in self.solo)

    @property
    def effective_request(self) -> SteeringRequest:
        """`request` without the features that have no effect."""
        features = tuple(one for one in self.request.features if self.is_effective(one))
        return self.request.model_copy(update={"features": features})


@dataclass
class SteeringHistory:
    """Undo and redo stacks of the active steering, latest last."""

    version: int = 0
    """Increases with every change, undo and redo included."""
    redo_stack: deque[ActiveSteeringState | None] = field(default_factory=lambda: deque(maxlen=MAX_UNDO_STEPS))
    undo_stack: deque[ActiveSteeringState | None] = field(default_factory=lambda: deque(maxlen=MAX_UNDO_STEPS))

    def record(self, previous: ActiveSteeringState | None) -> None:
        """Push the state before an edit; the redo stack becomes invalid."""
        self.undo_stack.append(previous)
        self.redo_stack.clear()


class ApplicableProfilesCache:
    """Caches the applicable profiles: checking 10,000 costs a second, and every client polls the list of models."""

    def __init__(self) -> None:
        self._dependencies: tuple[object, ...] = ()
        self._profiles: Sequence[Profile] = ()

    def get(self, dependencies: tuple[object, ...], compute: Callable[[], Sequence[Profile]]) -> Sequence[Profile]:
        """`dependencies`: every value the result depends on; a change of one invalidates the cache."""
        if dependencies != self._dependencies:
            self._profiles = compute()
            self._dependencies = dependencies
        return self._profiles
