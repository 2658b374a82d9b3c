"""The profiles, in the database: each name once, whatever its case, and each file of a profile taken in once.

The file is the truth; what is kept in memory is a copy, for the model menu and for every request that names a profile.

A profile as a file of its own: read, and recognised by what it says.

A profile as lists show it: what it is about and whether it can be applied now, without its features.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import structlog
from pydantic import ValidationError

from millm.database import Database
from millm.errors import InvalidProfile, ProfileNameTaken, ProfileNotFound
from millm.profiles.schema import Profile, name_key, numbered_names


def read_profile(path: Path) -> Profile:
    """Raises InvalidProfile with the file's name and the first thing that is wrong."""
    try:
        return parse_profile(path.read_bytes(), path.name)
    except OSError as error:
        raise InvalidProfile(f"{path.name}: cannot be read ({error.strerror})") from error


def parse_profile(document: bytes, name: str) -> Profile:
    """Raises InvalidProfile with the document's `name` and the first thing that is wrong."""
    try:
        return Profile.model_validate(json.loads(document))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidProfile(f"{name}: {where}: {first['msg']}") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise InvalidProfile(f"{name}: not a JSON document") from error


def profile_digest(profile: Profile) -> str:
    """The same however it is laid out, and also once the contract has more fields, with defaults."""
    return hashlib.sha256(profile.model_dump_json(exclude_defaults=True).encode()).hexdigest()


log = structlog.get_logger()
MAX_LISTED_NAMES = 20
"""Profiles that an error lists."""
ExtraWrite = Callable[[sqlite3.Connection], object]
"""What else is written in the same transaction: all of it or nothing."""


@dataclass(frozen=True)
class StoredProfile:
    """A profile, and when (seconds since 1970) it came and was changed last."""

    id: int
    profile: Profile
    created: float
    updated: float


@dataclass(frozen=True)
class _ProfileIndex:
    """All of them at one moment, by the keys of their names."""

    by_key: dict[str, StoredProfile]

    @cached_property
    def sorted_by_name(self) -> tuple[StoredProfile, ...]:
        return tuple(stored for _, stored in sorted(self.by_key.items()))

    @cached_property
    def profiles(self) -> tuple[Profile, ...]:
        return tuple(stored.profile for stored in self.sorted_by_name)

    def with_profile(self, stored: StoredProfile, replaces: str | None = None) -> "_ProfileIndex":
        kept = {name: one for name, one in self.by_key.items() if name != replaces}
        return _ProfileIndex({**kept, name_key(stored.profile.name): stored})

    def without_profile(self, name: str) -> "_ProfileIndex":
        return _ProfileIndex({one: stored for one, stored in self.by_key.items() if one != name})


class ProfileStore:
    """Calls from any thread. What writes takes as long as the disk does, and raises NotStored where that is full."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._write_lock = threading.Lock()
        self._index = _ProfileIndex(_load_profiles(database))
        self.revision = 0
        """Goes up with every write."""

    def __len__(self) -> int:
        return len(self._index.by_key)

    def find(self, name: str) -> Profile:
        """Raises ProfileNotFound."""
        return self.find_stored(name).profile

    def find_stored(self, name: str) -> StoredProfile:
        """Raises ProfileNotFound."""
        shelf = self._index
        found = shelf.by_key.get(name_key(name))
        if found is None:
            raise ProfileNotFound(
                f"The profile `{name[:128]}` does not exist; there are: {_format_names(shelf)}", param="profile"
            )
        return found

    def all(self) -> Sequence[Profile]:
        """In the order of their names."""
        return self._index.profiles

    def page(self, *, search: str = "", limit: int = 100, offset: int = 0) -> tuple[list[StoredProfile], int]:
        """Those with `search` in their name, description or tags, from `offset` on; and how many there are of them."""
        wanted = name_key(search)
        found = (
            [one for one in self._index.sorted_by_name if _matches_search(one.profile, wanted)]
            if wanted
            else self._index.sorted_by_name
        )
        return list(found[offset : offset + limit]), len(found)

    def free_name(self, preferred: str) -> str:
        """`wanted`, or with a number behind it where that is taken."""
        shelf = self._index
        return next(name for name in numbered_names(preferred) if name_key(name) not in shelf.by_key)

    def add(self, profile: Profile, extra_write: ExtraWrite | None = None) -> StoredProfile:
        """Raises ProfileNameTaken."""
        with self._write_lock:
            self._check_name_free(profile.name)
            return self._add(profile, extra_write)

    def replace(self, name: str, profile: Profile, extra_write: ExtraWrite | None = None) -> StoredProfile:
        """Under the name that `profile` has. Raises ProfileNotFound, or ProfileNameTaken for a name of another one."""
        with self._write_lock:
            before = self.find_stored(name)
            if name_key(profile.name) != name_key(before.profile.name):
                self._check_name_free(profile.name)
            return self._replace(before, profile, extra_write)

    def delete(self, name: str, extra_write: ExtraWrite | None = None) -> None:
        """Raises ProfileNotFound."""
        with self._write_lock:
            found = self.find_stored(name)
            self._write("DELETE FROM profiles WHERE id = ?", (found.id,), extra_write)
            self._set_index(self._index.without_profile(name_key(found.profile.name)))

    def import_file(self, path: Path) -> Profile | None:
        """A profile's file, once for each content: what became of it here since then stays as it is.

        A file with another content than before brings that too, unless the profile was changed here. None: nothing
        was taken in. Raises InvalidProfile.
        """
        profile = read_profile(path)
        with self._write_lock:
            if self._was_imported(profile):
                return None
            before = self._index.by_key.get(name_key(profile.name))
            if before and before.profile == profile:
                return None
            if before and not self._was_imported(before.profile):
                log.warning("profiles.file_skipped", file=path.name, profile=profile.name, reason="the name is taken")
                return None
            stored = (
                self._replace(before, profile, _record_import(profile))
                if before
                else self._add(profile, _record_import(profile))
            )
        return stored.profile

    def import_or_find(self, path: Path) -> Profile:
        """A file that somebody names: what is here under its name, or the file's own where nothing is any more.

        Raises InvalidProfile.
        """
        taken, said = self.import_file(path), read_profile(path)
        if taken:
            return taken
        if name_key(said.name) not in self._index.by_key:
            return self.add(said).profile
        found = self.find(said.name)
        if found != said:
            log.warning("profiles.file_differs", file=path.name, profile=found.name, used="the profile as it is here")
        return found

    def _add(self, profile: Profile, extra_write: ExtraWrite | None) -> StoredProfile:
        now = time.time()
        made = (name_key(profile.name), profile.name, _profile_json(profile), now, now)
        id = self._write(
            "INSERT INTO profiles (key, name, body, created, updated) VALUES (?, ?, ?, ?, ?)", made, extra_write
        )
        stored = StoredProfile(id, profile, now, now)
        self._set_index(self._index.with_profile(stored))
        return stored

    def _replace(self, before: StoredProfile, profile: Profile, extra_write: ExtraWrite | None) -> StoredProfile:
        stored = StoredProfile(before.id, profile, before.created, time.time())
        changed = (name_key(profile.name), profile.name, _profile_json(profile), stored.updated, stored.id)
        self._write("UPDATE profiles SET key = ?, name = ?, body = ?, updated = ? WHERE id = ?", changed, extra_write)
        self._set_index(self._index.with_profile(stored, replaces=name_key(before.profile.name)))
        return stored

    def _write(self, command: str, values: Sequence[object], extra_write: ExtraWrite | None) -> int:
        """→ the id of a new row."""

        def change(connection: sqlite3.Connection) -> int:
            id = connection.execute(command, values).lastrowid
            if extra_write:
                extra_write(connection)
            return id or 0

        try:
            return self._database.write(change)
        except sqlite3.IntegrityError as error:
            raise ProfileNameTaken(
                "a profile that this miLLM does not understand has that name; choose another", param="name"
            ) from error

    def _set_index(self, index: _ProfileIndex) -> None:
        self._index = index
        self.revision += 1

    def _check_name_free(self, name: str) -> None:
        other = self._index.by_key.get(name_key(name))
        if other:
            raise ProfileNameTaken(
                f"there is a profile named {other.profile.name!r} already; choose another name, or change that one",
                param="name",
            )

    def _was_imported(self, profile: Profile) -> bool:
        """As a file."""
        return bool(self._database.read("SELECT 1 FROM profile_files WHERE sha256 = ?", (profile_digest(profile),)))


def _load_profiles(database: Database) -> dict[str, StoredProfile]:
    """What a later miLLM wrote and this one does not understand is left where it is, and told."""
    found = {}
    for id, name, body, created, updated in database.read("SELECT id, name, body, created, updated FROM profiles"):
        try:
            found[name_key(name)] = StoredProfile(id, Profile.model_validate_json(body), created, updated)
        except ValidationError as error:
            log.error("profiles.not_understood", profile=name, reason=str(error.errors(include_url=False)[0]["msg"]))
    return found


def _profile_json(profile: Profile) -> str:
    return profile.model_dump_json(exclude_none=True)


def _record_import(profile: Profile) -> ExtraWrite:
    return lambda connection: connection.execute("INSERT INTO profile_files VALUES (?)", (profile_digest(profile),))


def _matches_search(profile: Profile, search_key: str) -> bool:
    return any(search_key in name_key(text) for text in (profile.name, profile.description, *profile.tags))


def _format_names(index: _ProfileIndex) -> str:
    named = [stored.profile.name for stored in index.sorted_by_name[:MAX_LISTED_NAMES]]
    more = len(index.by_key) - len(named)
    return ", ".join([*named, *([f"{more} more"] if more else [])]) or "none"


class ProfileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One profile of the list."""

    name: str
    description: str
    model: str | None
    """The one it was made for; None: it does not say."""
    saes: tuple[str, ...]
    """Those that it steers; none: it does not say."""
    features: int
    """How many."""
    is_active: bool
    """It steers the server."""
    misfit: str | None
    """Why it cannot be applied now; None: it can."""
    model_id: str | None
    """What a client asks for as `model` to have it applied; None: it cannot be now."""
    created: float
    """Seconds since 1970."""
    updated: float
    source: str | None
    """The tool that it comes from."""


class ProfilePage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the list, in the order of names."""

    profiles: tuple[ProfileEntry, ...]
    total: int
    """How many there are that were asked for."""


class ProfileDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One profile, whole."""

    profile: dict[str, Any]
    """As a file has it."""
    entry: ProfileEntry


def profile_entry(
    stored: StoredProfile, *, is_active: bool, incompatibility: str | None, model: str | None
) -> ProfileEntry:
    """`model`: the name of the loaded one, if there is one."""
    profile = stored.profile
    return ProfileEntry(
        name=profile.name,
        description=profile.description,
        model=profile.model.repo_id if profile.model else None,
        saes=_sae_names(profile),
        features=len(profile.features),
        is_active=is_active,
        misfit=incompatibility,
        model_id=f"{model}:{profile.name}" if model and incompatibility is None else None,
        created=stored.created,
        updated=stored.updated,
        source=profile.provenance.source if profile.provenance else None,
    )


def _sae_names(profile: Profile) -> tuple[str, ...]:
    """By the names that the profile gives them."""
    stated = [sae.alias or sae.hook_point or "" for sae in profile.saes]
    return tuple(stated or sorted({feature.sae for feature in profile.features if feature.sae}))
