"""List a repository at one commit, select its files, and search Hugging Face's models. Writes nothing to the disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec
from huggingface_hub import HfApi, constants, get_session, hf_raise_for_status
from huggingface_hub.hf_api import ModelInfo

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
    """sha256 of files outside git (LFS), else git's sha1 of a blob."""


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repository: str
    commit: str
    selected: tuple[RemoteFile, ...]
    """The smallest first, so that errors show early."""
    others: tuple[RemoteFile, ...]
    info: ModelInfo

    @property
    def snapshot(self) -> Path:
        return hf_cache.snapshot_folder(Path(constants.HF_HUB_CACHE), self.repository, self.commit)

    @property
    def blobs(self) -> Path:
        return self.snapshot.parent.parent / "blobs"

    def is_cached(self, file: RemoteFile) -> bool:
        """True if the cache has the file with the right size; its content is not checked."""
        paths = (self.blobs / file.hash, self.snapshot / file.path)
        return any(path.is_file() and path.stat().st_size == file.size for path in paths)

    @property
    def missing_bytes(self) -> int:
        """Bytes of selected files that are not in the cache."""
        return sum(file.size for file in self.selected if not self.is_cached(file))


def list_repository(command: RepositoryCommand, token: str | None) -> Listing:
    """Raises huggingface_hub's errors, and RepositoryNotFound, InvalidModel or InvalidSae where no file is selected."""
    spec = command.spec
    info = HfApi().model_info(
        spec.repository,
        revision=spec.revision,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        token=token or False,
    )
    files = [
        RemoteFile(file.rfilename, file.size or 0, (file.lfs.sha256 if file.lfs else file.blob_id) or "")
        for file in info.siblings or ()
    ]
    paths = _select_paths({file.path for file in files}, command)
    selected = sorted((file for file in files if file.path in paths), key=lambda file: (file.size, file.path))
    if all(file.path.endswith(_NON_WEIGHT_SUFFIXES) for file in selected):
        raise _no_weights_error(command, files)
    assert info.sha is not None
    others = tuple(file for file in files if file not in selected)
    return Listing(spec.repository, info.sha, tuple(selected), others, info)


def _select_paths(paths: set[str], command: RepositoryCommand) -> set[str]:
    """By the command's patterns; for an SAE to convert, the files of its layout, pickles included."""
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
    spec = command.spec
    if spec.kind == "model":
        return InvalidModel(
            f"{spec.repository} has no .safetensors weights, the only kind that cannot run code when read"
        )
    if not any(file.path.startswith(f"{spec.path}/") for file in files):
        return RepositoryNotFound(
            f"{spec.repository} has no SAE in {spec.path!r}; look at its files at {repository_url(spec)}"
        )
    return InvalidSae(
        f"no SAE found in {spec.name}: it holds no .safetensors or .npz weights"
        " (a pickle such as .pt is not read, because it can run code: convert it)"
    )


_TIMEOUT_SECONDS = 10


class _SafetensorsInfo(msgspec.Struct):
    total: int | None = None


class _ModelHit(msgspec.Struct):
    """The expanded fields of `GET /api/models`."""

    id: str
    downloads: int | None = None
    likes: int | None = None
    gated: bool | str | None = None
    safetensors: _SafetensorsInfo | None = None


def search_models(command: ModelSearchCommand, token: str | None) -> tuple[RemoteModel, ...]:
    """Only models with safetensors, the most downloaded first. Raises huggingface_hub's errors.

    One request: `HfApi.list_models` retries for 23 s, while the user waits and can press Enter again.
    """
    response = get_session().get(
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
    hf_raise_for_status(response)
    hits = msgspec.json.decode(response.content, type=list[_ModelHit])[: command.limit]
    return tuple(_to_remote_model(hit) for hit in hits)


def _to_remote_model(hit: _ModelHit) -> RemoteModel:
    return RemoteModel(
        id=hit.id,
        downloads=hit.downloads or 0,
        likes=hit.likes or 0,
        gated=bool(hit.gated),
        parameters=hit.safetensors.total if hit.safetensors else None,
        known_saes=count_saes(hit.id),
    )
