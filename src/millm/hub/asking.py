"""A name that somebody wrote → what is asked of Hugging Face, checked before anything is done."""

import re

from millm.errors import InvalidRequest
from millm.hub.jobs import ArtifactKind, DownloadSpec

_REPOSITORY = re.compile(r"(?P<owner>\w[\w.-]{0,95})/(?P<name>\w[\w.-]{0,95})", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9._\-/]{1,128}")
_PART = re.compile(r"[^/\\\x00-\x1f*?\[\]]{1,255}")


def parse_spec(name: str, kind: ArtifactKind, revision: str = "main") -> DownloadSpec:
    """`owner/name`, an SAE's `owner/name/path/inside`, either with `@revision`. Raises InvalidRequest."""
    whole, _, named = name.strip().partition("@")
    if named and revision not in ("main", named):
        raise InvalidRequest(f"{name!r} and revision {revision!r} name two revisions; give one", param="revision")
    parts = whole.rstrip("/").split("/")
    asked = DownloadSpec(
        kind=kind, repository="/".join(parts[:2]), revision=named or revision, path="/".join(parts[2:])
    )
    check_spec(asked)
    return asked


def check_spec(spec: DownloadSpec) -> None:
    """Raises InvalidRequest for what is no repository, revision or path inside one."""
    if not _is_repository(spec.repository):
        raise InvalidRequest(f"{spec.name!r} is no Hugging Face id (owner/name)", param="id")
    if not _REVISION.fullmatch(spec.revision) or ".." in spec.revision or spec.revision.startswith("/"):
        raise InvalidRequest(
            f"{spec.revision!r} is no revision: a branch, a tag or a commit, without '..'", param="revision"
        )
    if spec.path and spec.kind == "model":
        raise InvalidRequest(f"{spec.name!r}: a model is a whole repository; give {spec.repository!r}", param="id")
    if spec.path and not all(_is_part(part) for part in spec.path.split("/")):
        raise InvalidRequest(f"{spec.name!r}: a path inside a repository cannot hold '..' or wildcards", param="id")


def _is_repository(name: str) -> bool:
    return bool(_REPOSITORY.fullmatch(name)) and not any(word in name for word in ("..", "--"))


def _is_part(part: str) -> bool:
    return bool(_PART.fullmatch(part)) and part not in (".", "..")
