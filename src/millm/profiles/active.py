"""What is active on the server: a steering with its knobs, some of them muted, and what it was before each change."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from millm.profiles.contract import ProfileFeature, SteeringRequest
from millm.sae.steering import Steering

MOST_EDITS = 50
"""Changes that can be taken back."""

Knob = tuple[str | None, int]
"""(SAE, feature): a steering has each once. No SAE: the only one there is."""


def knob_of(feature: ProfileFeature) -> Knob:
    return feature.sae, feature.index


@dataclass(frozen=True)
class Active:
    """What steers every request that does not say otherwise."""

    profile: str | None
    """The one it came from, if it did."""
    asked: SteeringRequest
    """Every knob, those that do nothing at the moment included."""
    steering: Steering | None
    """What of `asked` is heard, resolved when it was made active. None: nothing is, the base model answers."""
    muted: frozenset[Knob] = frozenset()
    solo: frozenset[Knob] = frozenset()
    """If there are any, only these are heard."""
    on: bool = True
    """The master switch."""
    is_modified: bool = False
    """Not what the profile says any more."""

    def is_heard(self, feature: ProfileFeature) -> bool:
        knob = knob_of(feature)
        return self.on and knob not in self.muted and (not self.solo or knob in self.solo)


def heard(
    asked: SteeringRequest, muted: Iterable[Knob] = (), solo: Iterable[Knob] = (), *, on: bool = True
) -> SteeringRequest:
    """`asked`, without the knobs that do nothing."""
    rack = Active(None, asked, None, frozenset(muted), frozenset(solo), on)
    return asked.model_copy(update={"features": tuple(one for one in asked.features if rack.is_heard(one))})


@dataclass
class Edits:
    """The steerings that were active before, to go back to, and how often it has changed."""

    version: int = 0
    undone: deque[Active | None] = field(default_factory=lambda: deque(maxlen=MOST_EDITS))
    """What can be had again, the latest last."""
    done: deque[Active | None] = field(default_factory=lambda: deque(maxlen=MOST_EDITS))
    """What it was before, the latest last."""

    def changed(self, before: Active | None) -> None:
        """By somebody, on purpose: what was undone before cannot be had again."""
        self.done.append(before)
        self.undone.clear()
