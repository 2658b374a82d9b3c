"""What `/api/monitor` and `/api/requests` answer: plain values."""

import msgspec

from millm.events import RequestRow
from millm.monitoring.history import TrackedToken
from millm.monitoring.statistics import FeatureStatistics
from millm.monitoring.watch import SaeWatch


class WatchState(SaeWatch, frozen=True, kw_only=True):
    """What is read of one SAE, and whether it can be."""

    active: bool
    """False: that SAE is not attached."""


class MonitorState(msgspec.Struct, frozen=True, kw_only=True):
    """What is watched in every request that begins now."""

    on: bool
    watch: tuple[WatchState, ...]
    follow_profile: bool
    """Also what the active profile would have watched."""
    history: int
    """Requests that are remembered."""
    history_size: int
    history_bytes: int
    """Of memory that they take."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of the requests that are meant, per feature that was watched by name."""

    edges: tuple[float, ...]
    """Of each `histogram`."""
    requests: int
    features: tuple[FeatureStatistics, ...]


class RequestDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has ended, with the activations that were watched in it.

    Texts are null where the setting `MILLM_HISTORY_TEXTS` does not keep them, or there was no room.
    """

    request: RequestRow
    activations: tuple[TrackedToken, ...]
    prompts: tuple[str, ...] | None
    """As the model read them, with the chat template and its special tokens."""
    answers: tuple[str, ...] | None
    body: str | None
    """The request's JSON, as it came."""


class DeletedRequests(msgspec.Struct, frozen=True, kw_only=True):
    """What the history holds no more."""

    requests: int
