"""The profile store: profiles in the database with unique names, mirrored in memory, and their import from files."""

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

log = structlog.get_logger()
MAX_LISTED_NAMES = 20
"""Profile names in an error message."""
ExtraWrite = Callable[[sqlite3.Connection], object]
"""A further write in the same transaction."""


def read_profile(path: Path) -> Profile:
    """Raises InvalidProfile with the file's name and the first error."""
    try:
        return parse_profile(path.read_bytes(), path.name)
    except OSError as error:
        raise InvalidProfile(f"{path.name}: cannot be read ({error.strerror})") from error


def parse_profile(document: bytes, name: str) -> Profile:
    """Raises InvalidProfile with the document's `name` and the first error."""
    try:
        return Profile.model_validate(json.loads(document))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidProfile(f"{name}: {where}: {first['msg']}") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise InvalidProfile(f"{name}: not a JSON document") from error


def profile_digest(profile: Profile) -> str:
    """SHA-256 of the content, independent of layout and of fields with default values."""
    return hashlib.sha256(profile.model_dump_json(exclude_defaults=True).encode()).hexdigest()


@dataclass(frozen=True)
class StoredProfile:
    id: int
    profile: Profile
    created: float
    """Unix time, like `updated`."""
    updated: float


@dataclass(frozen=True)
class _ProfileIndex:
    """An immutable snapshot of all profiles."""

    by_key: dict[str, StoredProfile]
    """By `name_key`."""

    @cached_property
    def sorted_by_name(self) -> tuple[StoredProfile, ...]:
        return tuple(stored for _, stored in sorted(self.by_key.items()))

    @cached_property
    def profiles(self) -> tuple[Profile, ...]:
        return tuple(stored.profile for stored in self.sorted_by_name)

    def with_profile(self, stored: StoredProfile, replaces: str | None = None) -> "_ProfileIndex":
        others = {key: one for key, one in self.by_key.items() if key != replaces}
        return _ProfileIndex({**others, name_key(stored.profile.name): stored})

    def without_profile(self, name: str) -> "_ProfileIndex":
        return _ProfileIndex({one: stored for one, stored in self.by_key.items() if one != name})


class ProfileStore:
    """Thread-safe. Writes block on the disk and raise NotStored where it is full."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._write_lock = threading.Lock()
        self._index = _ProfileIndex(_load_profiles(database))
        self.revision = 0
        """Increases with every write."""

    def __len__(self) -> int:
        return len(self._index.by_key)

    def find(self, name: str) -> Profile:
        """Raises ProfileNotFound."""
        return self.find_stored(name).profile

    def find_stored(self, name: str) -> StoredProfile:
        """Raises ProfileNotFound."""
        index = self._index
        stored = index.by_key.get(name_key(name))
        if stored is None:
            raise ProfileNotFound(
                f"The profile `{name[:128]}` does not exist; there are: {_format_names(index)}", param="profile"
            )
        return stored

    def has(self, name: str) -> bool:
        return name_key(name) in self._index.by_key

    def all(self) -> Sequence[Profile]:
        """Sorted by name."""
        return self._index.profiles

    def page(self, *, search: str = "", limit: int = 100, offset: int = 0) -> tuple[list[StoredProfile], int]:
        """(page, total) of the profiles with `search` in their name, description or tags, sorted by name."""
        key = name_key(search)
        matching = [one for one in self._index.sorted_by_name if not key or _matches_search(one.profile, key)]
        return matching[offset : offset + limit], len(matching)

    def free_name(self, preferred: str) -> str:
        """`preferred`, with a number appended where the name exists."""
        return next(name for name in numbered_names(preferred) if not self.has(name))

    def add(self, profile: Profile, extra_write: ExtraWrite | None = None) -> StoredProfile:
        """Raises ProfileNameTaken."""
        with self._write_lock:
            self._check_name_free(profile.name)
            return self._add(profile, extra_write)

    def replace(self, name: str, profile: Profile, extra_write: ExtraWrite | None = None) -> StoredProfile:
        """Replace the profile `name`; `profile` may rename it. Raises ProfileNotFound or ProfileNameTaken."""
        with self._write_lock:
            before = self.find_stored(name)
            if name_key(profile.name) != name_key(before.profile.name):
                self._check_name_free(profile.name)
            return self._replace(before, profile, extra_write)

    def delete(self, name: str, extra_write: ExtraWrite | None = None) -> None:
        """Raises ProfileNotFound."""
        with self._write_lock:
            stored = self.find_stored(name)
            self._write("DELETE FROM profiles WHERE id = ?", (stored.id,), extra_write)
            self._set_index(self._index.without_profile(name_key(stored.profile.name)))

    def import_file(self, path: Path) -> Profile | None:
        """Import a file, once per content; later edits in the store are never overwritten.

        A file with new content replaces the profile unless that was edited here. None: nothing was imported.
        Raises InvalidProfile.
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
        """The stored profile with the file's name, imported where it does not exist. Raises InvalidProfile."""
        imported, profile = self.import_file(path), read_profile(path)
        if imported:
            return imported
        if not self.has(profile.name):
            return self.add(profile).profile
        stored = self.find(profile.name)
        if stored != profile:
            log.warning("profiles.file_differs", file=path.name, profile=stored.name, used="the profile as it is here")
        return stored

    def _add(self, profile: Profile, extra_write: ExtraWrite | None) -> StoredProfile:
        now = time.time()
        row = (name_key(profile.name), profile.name, _profile_json(profile), now, now)
        id = self._write(
            "INSERT INTO profiles (key, name, body, created, updated) VALUES (?, ?, ?, ?, ?)", row, extra_write
        )
        stored = StoredProfile(id, profile, now, now)
        self._set_index(self._index.with_profile(stored))
        return stored

    def _replace(self, before: StoredProfile, profile: Profile, extra_write: ExtraWrite | None) -> StoredProfile:
        stored = StoredProfile(before.id, profile, before.created, time.time())
        row = (name_key(profile.name), profile.name, _profile_json(profile), stored.updated, stored.id)
        self._write("UPDATE profiles SET key = ?, name = ?, body = ?, updated = ? WHERE id = ?", row, extra_write)
        self._set_index(self._index.with_profile(stored, replaces=name_key(before.profile.name)))
        return stored

    def _write(self, command: str, values: Sequence[object], extra_write: ExtraWrite | None) -> int:
        """The id of an inserted row."""

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
        return bool(self._database.read("SELECT 1 FROM profile_files WHERE sha256 = ?", (profile_digest(profile),)))


def _load_profiles(database: Database) -> dict[str, StoredProfile]:
    """By `name_key`. A row that this version cannot parse is logged and left in the database."""
    profiles = {}
    for id, name, body, created, updated in database.read("SELECT id, name, body, created, updated FROM profiles"):
        try:
            profiles[name_key(name)] = StoredProfile(id, Profile.model_validate_json(body), created, updated)
        except ValidationError as error:
            log.error("profiles.not_understood", profile=name, reason=str(error.errors(include_url=False)[0]["msg"]))
    return profiles


def _profile_json(profile: Profile) -> str:
    return profile.model_dump_json(exclude_none=True)


def _record_import(profile: Profile) -> ExtraWrite:
    return lambda connection: connection.execute("INSERT INTO profile_files VALUES (?)", (profile_digest(profile),))


def _matches_search(profile: Profile, search_key: str) -> bool:
    return any(search_key in name_key(text) for text in (profile.name, profile.description, *profile.tags))


def _format_names(index: _ProfileIndex) -> str:
    names = [stored.profile.name for stored in index.sorted_by_name[:MAX_LISTED_NAMES]]
    more = len(index.by_key) - len(names)
    return ", ".join([*names, *([f"{more} more"] if more else [])]) or "none"


class ProfileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One profile of the list, without its features."""

    name: str
    description: str
    model: str | None
    """The model it is for; None where unstated."""
    saes: tuple[str, ...]
    """The SAEs it steers, by the profile's names."""
    features: int
    """Number of features."""
    is_active: bool
    misfit: str | None
    """Why it cannot be applied now; None where it can."""
    model_id: str | None
    """The `model` with which a client's request uses it; None where it cannot be applied."""
    created: float
    """Unix time, like `updated`."""
    updated: float
    source: str | None
    """The tool it comes from."""


class ProfilePage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the list, sorted by name."""

    profiles: tuple[ProfileEntry, ...]
    total: int
    """Number of matching profiles."""


class ProfileDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One profile with all fields."""

    profile: dict[str, Any]
    """In the file format."""
    entry: ProfileEntry


def profile_entry(
    stored: StoredProfile, *, is_active: bool, incompatibility: str | None, model: str | None
) -> ProfileEntry:
    """`model`: the name of the loaded model."""
    profile = stored.profile
    saes = [sae.alias or sae.hook_point or "" for sae in profile.saes]
    return ProfileEntry(
        name=profile.name,
        description=profile.description,
        model=profile.model.repo_id if profile.model else None,
        saes=tuple(saes or sorted({feature.sae for feature in profile.features if feature.sae})),
        features=len(profile.features),
        is_active=is_active,
        misfit=incompatibility,
        model_id=f"{model}:{profile.name}" if model and incompatibility is None else None,
        created=stored.created,
        updated=stored.updated,
        source=profile.provenance.source if profile.provenance else None,
    )
