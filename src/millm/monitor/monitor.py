"""The monitor of one server: what it watches in every request, and the history of the last ones."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from millm.database import Database
from millm.engine.messages import SaeFacts
from millm.events import EventBus, RequestRow
from millm.metrics.meter import Meter
from millm.monitor import config
from millm.monitor.config import MonitorConfig, SaeWatch
from millm.monitor.history import History
from millm.monitor.recording import RecordedRequest, RequestRecorder
from millm.monitor.watching import WatchPlan, merge_watches
from millm.sae.steering import Watch
from millm.settings import Settings


class Monitor:
    """Lives on one event loop."""

    def __init__(self, settings: Settings, events: EventBus, database: Database, meter: Meter) -> None:
        """As it was set before a restart; the history is empty."""
        self.config = config.read_monitor_config(database)
        self.history = History(settings.history_size, settings.history_bytes)
        self._text_policy = settings.history_texts
        self._events = events
        self._meter = meter
        self._database = database
        self._write_lock = asyncio.Lock()
        self.open_requests: dict[str, RequestRecorder] = {}
        """Requests that have not ended, by their ids, the oldest first."""

    async def set_config(self, new_config: MonitorConfig) -> None:
        """For the requests that begin from now on. Raises NotStored; nothing has changed then."""
        async with self._write_lock:
            await asyncio.to_thread(config.write_monitor_config, self._database, new_config)
            self.config = new_config

    def plan_watches(
        self,
        request_watches: Sequence[Watch],
        saes: Mapping[str, SaeFacts],
        profile_features: Mapping[str, tuple[int, ...]],
    ) -> WatchPlan:
        """`asked`: by the request itself; `saes`: those attached; `profile`: what the active one would have watched."""
        own = {one.sae: one for one in self.config.watch} if self.config.on else {}
        followed = profile_features if self.config.on and self.config.follow_profile else {}
        if not request_watches and not own and not followed:
            return WatchPlan()
        wanted = [
            _add_profile_features(own.get(sae), sae, followed.get(sae, ())).to_engine_watch(facts)
            for sae, facts in saes.items()
            if sae in own or sae in followed
        ]
        return merge_watches(request_watches, [watch for watch in wanted if watch.features or watch.top_k])

    def start_recording(self, request: RecordedRequest, on_close: Callable[[RequestRow], object]) -> RequestRecorder:
        """From here until it is closed, the request is open; then what came of it is told."""

        def closed(row: RequestRow) -> None:
            self.open_requests.pop(request.id, None)
            on_close(row)

        recording = RequestRecorder(request, self.history, self._events, self._meter, self._text_policy, closed)
        self.open_requests[request.id] = recording
        return recording


def _add_profile_features(sae_watch: SaeWatch | None, sae: str, features: tuple[int, ...]) -> SaeWatch:
    """The monitor's, and the profile's features."""
    if sae_watch is None:
        return SaeWatch(sae=sae, features=features)
    return SaeWatch(
        sae=sae,
        features=(*sae_watch.features, *features),
        top_k=sae_watch.top_k,
        tokens=sae_watch.tokens,
        when=sae_watch.when,
        sample_every=sae_watch.sample_every,
    )
