"""What is active on the server: a steering with its knobs, some of them muted, and what it was before each change.

The profiles that can be applied now: found out once, until something is stored, loaded or attached.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from millm.profiles.schema import Profile, ProfileFeature, SteeringRequest
from millm.sae.steering import Steering

MAX_UNDO_STEPS = 50
"""Changes that can be taken back."""
FeatureKey = tuple[str | None, int]
"""(SAE, feature): a steering has each once. No SAE: the only one there is."""


def feature_key(feature: ProfileFeature) -> FeatureKey:
    return feature.sae, feature.index


@dataclass(frozen=True)
class ActiveSteeringState:
    """What steers every request that does not say otherwise."""

    profile: str | None
    """The one it came from, if it did."""
    request: SteeringRequest
    """Every knob, those that do nothing at the moment included."""
    steering: Steering | None
    """What of `asked` is heard, resolved when it was made active. None: nothing is, the base model answers."""
    muted: frozenset[FeatureKey] = frozenset()
    solo: frozenset[FeatureKey] = frozenset()
    """If there are any, only these are heard."""
    on: bool = True
    """The master switch."""
    is_modified: bool = False
    """Not what the profile says any more."""

    def is_effective(self, feature: ProfileFeature) -> bool:
        knob = feature_key(feature)
        return self.on and knob not in self.muted and (not self.solo or knob in self.solo)


def effective_request(
    request: SteeringRequest, muted: Iterable[FeatureKey] = (), solo: Iterable[FeatureKey] = (), *, on: bool = True
) -> SteeringRequest:
    """`asked`, without the knobs that do nothing."""
    rack = ActiveSteeringState(None, request, None, frozenset(muted), frozenset(solo), on)
    return request.model_copy(update={"features": tuple(one for one in request.features if rack.is_effective(one))})


@dataclass
class SteeringHistory:
    """The steerings that were active before, to go back to, and how often it has changed."""

    version: int = 0
    redo_stack: deque[ActiveSteeringState | None] = field(default_factory=lambda: deque(maxlen=MAX_UNDO_STEPS))
    """What can be had again, the latest last."""
    undo_stack: deque[ActiveSteeringState | None] = field(default_factory=lambda: deque(maxlen=MAX_UNDO_STEPS))
    """What it was before, the latest last."""

    def record(self, previous: ActiveSteeringState | None) -> None:
        """By somebody, on purpose: what was undone before cannot be had again."""
        self.undo_stack.append(previous)
        self.redo_stack.clear()


class ApplicableProfilesCache:
    """Ten thousand profiles take a second to look through, and every client asks for the list of models."""

    def __init__(self) -> None:
        self._dependencies: tuple[object, ...] = ()
        self._profiles: Sequence[Profile] = ()

    def get(self, dependencies: tuple[object, ...], compute: Callable[[], Sequence[Profile]]) -> Sequence[Profile]:
        """`circumstances`: all that the answer depends on; values that are replaced when they change."""
        if dependencies != self._dependencies:
            self._profiles = compute()
            self._dependencies = dependencies
        return self._profiles
