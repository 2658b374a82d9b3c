"""What this server keeps on disk, and how it gets there: the one home, its database, its library, its downloads."""

from dataclasses import dataclass

from millm.database import Database
from millm.hub.downloads import Downloads
from millm.hub.home import Home
from millm.hub.library import Library


@dataclass(frozen=True)
class Hub:
    home: Home
    database: Database
    library: Library
    downloads: Downloads
