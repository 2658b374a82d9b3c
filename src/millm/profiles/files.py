"""A profile as a file of its own: read, and recognised by what it says."""

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from millm.errors import InvalidProfile
from millm.profiles.contract import Profile


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
