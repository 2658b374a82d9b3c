"""A name that somebody wrote → what is asked of Hugging Face, checked before anything is done."""

import re

from millm.errors import InvalidRequest
from millm.hub.jobs import Asked, Kind

_REPOSITORY = re.compile(r"(?P<owner>\w[\w.-]{0,95})/(?P<name>\w[\w.-]{0,95})", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9._\-/]{1,128}")
_PART = re.compile(r"[^/\\\x00-\x1f*?\[\]]{1,255}")


def asked_for(name: str, kind: Kind, revision: str = "main") -> Asked:
    """`owner/name`, an SAE's `owner/name/path/inside`, either with `@revision`. Raises InvalidRequest."""
    whole, _, named = name.strip().partition("@")
    if named and revision not in ("main", named):
        raise InvalidRequest(f"{name!r} and revision {revision!r} name two revisions; give one", param="revision")
    parts = whole.rstrip("/").split("/")
    asked = Asked(kind=kind, repository="/".join(parts[:2]), revision=named or revision, path="/".join(parts[2:]))
    check(asked)
    return asked


def check(asked: Asked) -> None:
    """Raises InvalidRequest for what is no repository, revision or path inside one."""
    if not _is_repository(asked.repository):
        raise InvalidRequest(f"{asked.name!r} is no Hugging Face id (owner/name)", param="id")
    if not _REVISION.fullmatch(asked.revision) or ".." in asked.revision or asked.revision.startswith("/"):
        raise InvalidRequest(
            f"{asked.revision!r} is no revision: a branch, a tag or a commit, without '..'", param="revision"
        )
    if asked.path and asked.kind == "model":
        raise InvalidRequest(f"{asked.name!r}: a model is a whole repository; give {asked.repository!r}", param="id")
    if asked.path and not all(_is_part(part) for part in asked.path.split("/")):
        raise InvalidRequest(f"{asked.name!r}: a path inside a repository cannot hold '..' or wildcards", param="id")


def _is_repository(name: str) -> bool:
    return bool(_REPOSITORY.fullmatch(name)) and not any(word in name for word in ("..", "--"))


def _is_part(part: str) -> bool:
    return bool(_PART.fullmatch(part)) and part not in (".", "..")
