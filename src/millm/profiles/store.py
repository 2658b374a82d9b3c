"""The profiles, in the database: each name once, whatever its case, and each file of a profile taken in once.

The file is the truth; what is kept in memory is a copy, for the model menu and for every request that names a profile.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import structlog
from pydantic import ValidationError

from millm.errors import ProfileNameTaken, ProfileNotFound
from millm.profiles.contract import Profile
from millm.profiles.files import digest_of, read_profile
from millm.profiles.names import key, numbered
from millm.storage import Database

log = structlog.get_logger()

MOST_NAMED = 20
"""Profiles that an error lists."""

Also = Callable[[sqlite3.Connection], object]
"""What else is written in the same transaction: all of it or nothing."""


@dataclass(frozen=True)
class Stored:
    """A profile, and when (seconds since 1970) it came and was changed last."""

    id: int
    profile: Profile
    created: float
    updated: float


@dataclass(frozen=True)
class _Shelf:
    """All of them at one moment, by the keys of their names."""

    by_key: dict[str, Stored]

    @cached_property
    def in_order(self) -> tuple[Stored, ...]:
        return tuple(stored for _, stored in sorted(self.by_key.items()))

    @cached_property
    def profiles(self) -> tuple[Profile, ...]:
        return tuple(stored.profile for stored in self.in_order)

    def with_one(self, stored: Stored, instead_of: str | None = None) -> "_Shelf":
        kept = {name: one for name, one in self.by_key.items() if name != instead_of}
        return _Shelf({**kept, key(stored.profile.name): stored})

    def without(self, name: str) -> "_Shelf":
        return _Shelf({one: stored for one, stored in self.by_key.items() if one != name})


class ProfileStore:
    """Calls from any thread. What writes takes as long as the disk does, and raises NotStored where that is full."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing = threading.Lock()
        self._shelf = _Shelf(_read(database))
        self.revision = 0
        """Goes up with every write."""

    def __len__(self) -> int:
        return len(self._shelf.by_key)

    def find(self, name: str) -> Profile:
        """Raises ProfileNotFound."""
        return self.stored(name).profile

    def stored(self, name: str) -> Stored:
        """Raises ProfileNotFound."""
        shelf = self._shelf
        found = shelf.by_key.get(key(name))
        if found is None:
            raise ProfileNotFound(
                f"The profile `{name[:128]}` does not exist; there are: {_some(shelf)}", param="profile"
            )
        return found

    def all(self) -> Sequence[Profile]:
        """In the order of their names."""
        return self._shelf.profiles

    def page(self, *, search: str = "", limit: int = 100, offset: int = 0) -> tuple[list[Stored], int]:
        """Those with `search` in their name, description or tags, from `offset` on; and how many there are of them."""
        wanted = key(search)
        found = [one for one in self._shelf.in_order if _holds(one.profile, wanted)] if wanted else self._shelf.in_order
        return list(found[offset : offset + limit]), len(found)

    def free_name(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where that is taken."""
        shelf = self._shelf
        return next(name for name in numbered(wanted) if key(name) not in shelf.by_key)

    def add(self, profile: Profile, also: Also | None = None) -> Stored:
        """Raises ProfileNameTaken."""
        with self._writing:
            self._check_free(profile.name)
            return self._add(profile, also)

    def replace(self, name: str, profile: Profile, also: Also | None = None) -> Stored:
        """Under the name that `profile` has. Raises ProfileNotFound, or ProfileNameTaken for a name of another one."""
        with self._writing:
            before = self.stored(name)
            if key(profile.name) != key(before.profile.name):
                self._check_free(profile.name)
            return self._replace(before, profile, also)

    def delete(self, name: str, also: Also | None = None) -> None:
        """Raises ProfileNotFound."""
        with self._writing:
            found = self.stored(name)
            self._write("DELETE FROM profiles WHERE id = ?", (found.id,), also)
            self._holds(self._shelf.without(key(found.profile.name)))

    def take_in(self, path: Path) -> Profile | None:
        """A profile's file, once for each content: what became of it here since then stays as it is.

        A file with another content than before brings that too, unless the profile was changed here. None: nothing
        was taken in. Raises InvalidProfile.
        """
        profile = read_profile(path)
        with self._writing:
            if self._has_had(profile):
                return None
            before = self._shelf.by_key.get(key(profile.name))
            if before and before.profile == profile:
                return None
            if before and not self._has_had(before.profile):
                log.warning("profiles.file_skipped", file=path.name, profile=profile.name, reason="the name is taken")
                return None
            stored = self._replace(before, profile, _noted(profile)) if before else self._add(profile, _noted(profile))
        return stored.profile

    def bring(self, path: Path) -> Profile:
        """A file that somebody names: what is here under its name, or the file's own where nothing is any more.

        Raises InvalidProfile.
        """
        taken, said = self.take_in(path), read_profile(path)
        if taken:
            return taken
        if key(said.name) not in self._shelf.by_key:
            return self.add(said).profile
        found = self.find(said.name)
        if found != said:
            log.warning("profiles.file_differs", file=path.name, profile=found.name, used="the profile as it is here")
        return found

    def _add(self, profile: Profile, also: Also | None) -> Stored:
        now = time.time()
        made = (key(profile.name), profile.name, _body(profile), now, now)
        id = self._write("INSERT INTO profiles (key, name, body, created, updated) VALUES (?, ?, ?, ?, ?)", made, also)
        stored = Stored(id, profile, now, now)
        self._holds(self._shelf.with_one(stored))
        return stored

    def _replace(self, before: Stored, profile: Profile, also: Also | None) -> Stored:
        stored = Stored(before.id, profile, before.created, time.time())
        changed = (key(profile.name), profile.name, _body(profile), stored.updated, stored.id)
        self._write("UPDATE profiles SET key = ?, name = ?, body = ?, updated = ? WHERE id = ?", changed, also)
        self._holds(self._shelf.with_one(stored, instead_of=key(before.profile.name)))
        return stored

    def _write(self, command: str, values: Sequence[object], also: Also | None) -> int:
        """→ the id of a new row."""

        def change(connection: sqlite3.Connection) -> int:
            id = connection.execute(command, values).lastrowid
            if also:
                also(connection)
            return id or 0

        try:
            return self._database.write(change)
        except sqlite3.IntegrityError as error:
            raise ProfileNameTaken(
                "a profile that this miLLM does not understand has that name; choose another", param="name"
            ) from error

    def _holds(self, shelf: _Shelf) -> None:
        self._shelf = shelf
        self.revision += 1

    def _check_free(self, name: str) -> None:
        other = self._shelf.by_key.get(key(name))
        if other:
            raise ProfileNameTaken(
                f"there is a profile named {other.profile.name!r} already; choose another name, or change that one",
                param="name",
            )

    def _has_had(self, profile: Profile) -> bool:
        """As a file."""
        return bool(self._database.read("SELECT 1 FROM profile_files WHERE sha256 = ?", (digest_of(profile),)))


def _read(database: Database) -> dict[str, Stored]:
    """What a later miLLM wrote and this one does not understand is left where it is, and told."""
    found = {}
    for id, name, body, created, updated in database.read("SELECT id, name, body, created, updated FROM profiles"):
        try:
            found[key(name)] = Stored(id, Profile.model_validate_json(body), created, updated)
        except ValidationError as error:
            log.error("profiles.not_understood", profile=name, reason=str(error.errors(include_url=False)[0]["msg"]))
    return found


def _body(profile: Profile) -> str:
    return profile.model_dump_json(exclude_none=True)


def _noted(profile: Profile) -> Also:
    return lambda connection: connection.execute("INSERT INTO profile_files VALUES (?)", (digest_of(profile),))


def _holds(profile: Profile, wanted: str) -> bool:
    return any(wanted in key(text) for text in (profile.name, profile.description, *profile.tags))


def _some(shelf: _Shelf) -> str:
    named = [stored.profile.name for stored in shelf.in_order[:MOST_NAMED]]
    more = len(shelf.by_key) - len(named)
    return ", ".join([*named, *([f"{more} more"] if more else [])]) or "none"
