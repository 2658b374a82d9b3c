"""What is watched in a request: its own `activations`, the monitor's list, and what the active profile would have."""

from collections.abc import Sequence

from millm.errors import InvalidSteering, MillmError
from millm.lifecycle.selection import resolve_watches
from millm.monitoring.watch import WatchPlan
from millm.profiles.resolve import watched_features
from millm.profiles.schema import ActivationsRequest
from millm.sae.steering import Watch
from millm.state import State


def resolve_watching(state: State, requested: Sequence[ActivationsRequest]) -> WatchPlan:
    """Raises InvalidSteering or SaeDetached for what the request itself asks; the monitor's never stands in its way."""
    own = [watch for one in requested for watch in resolve_watches(state, one)]
    _check_unique_saes(own)
    facts = {name: attached.facts for name, attached in state.saes.items()}
    return state.monitor.plan_watches(own, facts, _profile_features(state))


def _check_unique_saes(watches: Sequence[Watch]) -> None:
    names = [watch.sae for watch in watches]
    for name in names:
        if names.count(name) > 1:
            raise InvalidSteering(
                f"activations: SAE {name!r} is named twice; ask once for all of it", param="activations"
            )


def _profile_features(state: State) -> dict[str, tuple[int, ...]]:
    """A profile that does not fit any more, or is gone, has nothing watched."""
    config = state.monitor.config
    if not (config.on and config.follow_profile and state.active and state.active.profile):
        return {}
    try:
        return watched_features(state.saes, state.profiles.find(state.active.profile))
    except MillmError:
        return {}
