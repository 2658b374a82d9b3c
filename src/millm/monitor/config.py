"""What the operator has the server watch in every request: plain values, and their one row in the database."""

from typing import Annotated

import msgspec
from msgspec import Meta

from millm.database import Database
from millm.engine.messages import SaeFacts
from millm.monitor.watching import TokenScope, WatchTiming
from millm.sae.steering import Watch

MAX_WATCHED_SAES = 32


class SaeWatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to read of one SAE."""

    sae: Annotated[str, Meta(min_length=1, max_length=512)]
    features: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=64)] = ()
    top_k: Annotated[int, Meta(ge=0, le=100)] = 0
    """Also the most active features of the whole dictionary."""
    tokens: TokenScope = "generated"
    when: WatchTiming = "before"
    """Relative to steering."""
    sample_every: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """Read `top_k` at positions that are a multiple of this; None: as often as costs little."""

    def to_engine_watch(self, facts: SaeFacts) -> Watch:
        """For the engine: what of it the attached SAE has."""
        return Watch(
            sae=self.sae,
            features=tuple(feature for feature in dict.fromkeys(self.features) if feature < facts.features),
            top_k=min(self.top_k, facts.features),
            tokens=self.tokens,
            when=self.when,
            sample_every=(self.sample_every or facts.sample_every) if self.top_k else None,
            attachment=facts.id,
            optional=True,
        )


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of every request that begins from now on."""

    on: bool = False
    watch: Annotated[tuple[SaeWatch, ...], Meta(max_length=MAX_WATCHED_SAES)] = ()
    """One of each SAE."""
    follow_profile: bool = False
    """Also what the active profile would have watched."""


def read_monitor_config(database: Database) -> MonitorConfig:
    rows = database.read("SELECT body FROM monitor")
    return msgspec.json.decode(rows[0][0], type=MonitorConfig) if rows else MonitorConfig()


def write_monitor_config(database: Database, config: MonitorConfig) -> None:
    """When this returns, it holds. Raises NotStored."""
    body = msgspec.json.encode(config).decode()
    database.write(lambda connection: connection.execute("INSERT OR REPLACE INTO monitor VALUES (1, ?)", (body,)))
