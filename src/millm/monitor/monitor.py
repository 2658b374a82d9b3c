"""The monitor of one server: what it watches in every request, and the history of the last ones."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from millm.engine.messages import SaeFacts, Watch
from millm.events import Events
from millm.metrics.meter import Meter
from millm.monitor import config
from millm.monitor.config import MonitorConfig, SaeWatch
from millm.monitor.history import History
from millm.monitor.recording import Asked, Recording
from millm.monitor.rows import RequestRow
from millm.monitor.watching import Watching, merged
from millm.settings import Settings
from millm.storage import Database


class Monitor:
    """Lives on one event loop."""

    def __init__(self, settings: Settings, events: Events, database: Database, meter: Meter) -> None:
        """As it was set before a restart; the history is empty."""
        self.config = config.read(database)
        self.history = History(settings.history_size, settings.history_bytes)
        self._texts = settings.history_texts
        self._events = events
        self._meter = meter
        self._database = database
        self._writing = asyncio.Lock()
        self.open: dict[str, Recording] = {}
        """Requests that have not ended, by their ids, the oldest first."""

    async def change(self, wanted: MonitorConfig) -> None:
        """For the requests that begin from now on. Raises NotStored; nothing has changed then."""
        async with self._writing:
            await asyncio.to_thread(config.write, self._database, wanted)
            self.config = wanted

    def watching(
        self, asked: Sequence[Watch], saes: Mapping[str, SaeFacts], profile: Mapping[str, tuple[int, ...]]
    ) -> Watching:
        """`asked`: by the request itself; `saes`: those attached; `profile`: what the active one would have watched."""
        own = {one.sae: one for one in self.config.watch} if self.config.on else {}
        followed = profile if self.config.on and self.config.follow_profile else {}
        if not asked and not own and not followed:
            return Watching()
        wanted = [
            _with(own.get(sae), sae, followed.get(sae, ())).watch(facts)
            for sae, facts in saes.items()
            if sae in own or sae in followed
        ]
        return merged(asked, [watch for watch in wanted if watch.features or watch.top_k])

    def record(self, asked: Asked, tell: Callable[[RequestRow], object]) -> Recording:
        """From here until it is closed, the request is open; then what came of it is told."""

        def closed(row: RequestRow) -> None:
            self.open.pop(asked.id, None)
            tell(row)

        recording = Recording(asked, self.history, self._events, self._meter, self._texts, closed)
        self.open[asked.id] = recording
        return recording


def _with(own: SaeWatch | None, sae: str, features: tuple[int, ...]) -> SaeWatch:
    """The monitor's, and the profile's features."""
    if own is None:
        return SaeWatch(sae=sae, features=features)
    return SaeWatch(
        sae=sae,
        features=(*own.features, *features),
        top_k=own.top_k,
        tokens=own.tokens,
        when=own.when,
        sample_every=own.sample_every,
    )
