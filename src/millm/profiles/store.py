"""Profiles on disk: one JSON file each, those that ship with the demo and those of this home folder."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from millm.errors import InvalidProfile, ProfileNotFound
from millm.profiles.contract import Profile


class ProfileStore(Mapping[str, Profile]):
    """Read once, in the order of names. A file that is not a profile is refused when it is added, by name."""

    def __init__(self) -> None:
        self._profiles: dict[str, Profile] = {}

    def add_file(self, path: Path) -> Profile:
        profile = read_profile(path)
        if profile.name in self._profiles:
            raise InvalidProfile(f"{path.name}: there is a profile named {profile.name!r} already")
        self._profiles[profile.name] = profile
        return profile

    def add_folder(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.json")):
            self.add_file(path)

    def find(self, name: str) -> Profile:
        if name not in self._profiles:
            known = ", ".join(sorted(self._profiles)) or "none"
            raise ProfileNotFound(f"The profile `{name[:128]}` does not exist; there are: {known}", param="profile")
        return self._profiles[name]

    def all(self) -> list[Profile]:
        return list(self.values())

    def __getitem__(self, name: str) -> Profile:
        return self._profiles[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._profiles))

    def __len__(self) -> int:
        return len(self._profiles)


def read_profile(path: Path) -> Profile:
    """Raises InvalidProfile with the file's name and the first thing that is wrong."""
    try:
        return Profile.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise InvalidProfile(f"{path.name}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise InvalidProfile(f"{path.name}: {where}: {first['msg']}") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise InvalidProfile(f"{path.name}: not a JSON document") from error
