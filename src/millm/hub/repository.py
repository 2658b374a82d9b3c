"""What a repository holds at a revision, and which of it is wanted: asked of the hub once, as one commit.

Models of Hugging Face's by words of their names, the most fetched first.

Runs in the process that asks the hub, and writes nothing to the disk.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec
from huggingface_hub import HfApi, constants, get_session, hf_raise_for_status
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from millm.errors import InvalidModel, InvalidSae, MillmError, RepositoryNotFound
from millm.hub import hf_cache
from millm.hub.catalog import count_saes
from millm.hub.hf_client import repository_url
from millm.hub.jobs import ModelSearchCommand, RemoteModel, RepositoryCommand
from millm.hub.sae_layout import detect_foreign_sae

_NON_WEIGHT_SUFFIXES = (".json", ".jsonl", ".jinja", ".txt", ".model", ".py")


@dataclass(frozen=True)
class RemoteFile:
    path: str
    """In the repository."""
    size: int
    hash: str
    """sha256 of what is kept outside git, else git's sha1 of a blob."""


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repository: str
    commit: str
    selected: tuple[RemoteFile, ...]
    """The smallest first, so that what cannot be is found out early."""
    others: tuple[RemoteFile, ...]
    info: ModelInfo

    @property
    def snapshot(self) -> Path:
        return hf_cache.snapshot_folder(Path(constants.HF_HUB_CACHE), self.repository, self.commit)

    @property
    def blobs(self) -> Path:
        return self.snapshot.parent.parent / "blobs"

    def is_cached(self, file: RemoteFile) -> bool:
        """In the cache, with the right length; whether it is right is not looked at."""
        places = (self.blobs / file.hash, self.snapshot / file.path)
        return any(place.is_file() and place.stat().st_size == file.size for place in places)

    @property
    def missing_bytes(self) -> int:
        """Bytes that are not here."""
        return sum(file.size for file in self.selected if not self.is_cached(file))


def list_repository(command: RepositoryCommand, token: str | None) -> Listing:
    """Raises what huggingface_hub does, and RepositoryNotFound, InvalidModel or InvalidSae where nothing is wanted."""
    asked = command.spec
    info = HfApi().model_info(
        asked.repository,
        revision=asked.revision,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        token=token or False,
    )
    files = [_to_remote_file(sibling) for sibling in info.siblings or ()]
    names = _select_paths({file.path for file in files}, command)
    wanted = sorted((file for file in files if file.path in names), key=lambda file: (file.size, file.path))
    if all(file.path.endswith(_NON_WEIGHT_SUFFIXES) for file in wanted):
        raise _no_weights_error(command, files)
    assert info.sha is not None
    others = tuple(file for file in files if file not in wanted)
    return Listing(asked.repository, info.sha, tuple(wanted), others, info)


def _to_remote_file(sibling: RepoSibling) -> RemoteFile:
    found = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    return RemoteFile(sibling.rfilename, sibling.size or 0, found or "")


def _select_paths(paths: set[str], command: RepositoryCommand) -> set[str]:
    """By the order's patterns; of another library's SAE what it takes to convert it, a pickle if that is how it is."""
    foreign = detect_foreign_sae(command.spec.path, paths) if command.spec.kind == "sae" else None
    return {*foreign.files} if foreign else {path for path in paths if _is_selected(path, command)}


def _is_selected(path: str, command: RepositoryCommand) -> bool:
    return (
        ".." not in PurePosixPath(path).parts
        and _matches(path, command.allow_patterns)
        and not _matches(path, command.ignore_patterns)
    )


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _no_weights_error(command: RepositoryCommand, files: Iterable[RemoteFile]) -> MillmError:
    asked = command.spec
    if asked.kind == "model":
        return InvalidModel(
            f"{asked.repository} has no .safetensors weights, the only kind that cannot run code when read"
        )
    if not any(file.path.startswith(f"{asked.path}/") for file in files):
        return RepositoryNotFound(
            f"{asked.repository} has no SAE in {asked.path!r}; look at its files at {repository_url(asked)}"
        )
    return InvalidSae(
        f"no SAE found in {asked.name}: it holds no .safetensors or .npz weights"
        " (a pickle such as .pt is not read, because it can run code: convert it)"
    )


_TIMEOUT_SECONDS = 10


class _SafetensorsInfo(msgspec.Struct):
    total: int | None = None


class _ModelHit(msgspec.Struct):
    """Of `GET /api/models`, what is asked for by `expand`."""

    id: str
    downloads: int | None = None
    likes: int | None = None
    gated: bool | str | None = None
    safetensors: _SafetensorsInfo | None = None


def search_models(command: ModelSearchCommand, token: str | None) -> tuple[RemoteModel, ...]:
    """Only those with safetensors: nothing else is loaded. Raises what huggingface_hub does.

    Asked once: `HfApi.list_models` tries again for 23 s, and somebody waits who can press Enter again.
    """
    answer = get_session().get(
        f"{constants.ENDPOINT}/api/models",
        params={
            "search": command.words,
            "filter": "safetensors",
            "sort": "downloads",
            "limit": command.limit,
            "expand": ["downloads", "gated", "likes", "safetensors"],
        },
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=_TIMEOUT_SECONDS,
    )
    hf_raise_for_status(answer)
    return tuple(
        _to_remote_model(entry) for entry in msgspec.json.decode(answer.content, type=list[_ModelHit])[: command.limit]
    )


def _to_remote_model(entry: _ModelHit) -> RemoteModel:
    return RemoteModel(
        id=entry.id,
        downloads=entry.downloads or 0,
        likes=entry.likes or 0,
        gated=bool(entry.gated),
        parameters=entry.safetensors.total if entry.safetensors else None,
        known_saes=count_saes(entry.id),
    )
