"""What a repository holds at a revision, and which of it is wanted: asked of the hub once, as one commit."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from millm.errors import InvalidModel, InvalidSae, MillmError, RepositoryNotFound
from millm.hub import blobs
from millm.hub.foreign import recognise
from millm.hub.orders import Order
from millm.hub.refusals import page

_NO_WEIGHTS = (".json", ".jsonl", ".jinja", ".txt", ".model", ".py")


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
    wanted: tuple[RemoteFile, ...]
    """The smallest first, so that what cannot be is found out early."""
    others: tuple[RemoteFile, ...]
    info: ModelInfo

    @property
    def snapshot(self) -> Path:
        return blobs.snapshot(Path(constants.HF_HUB_CACHE), self.repository, self.commit)

    @property
    def blobs(self) -> Path:
        return self.snapshot.parent.parent / "blobs"

    def is_here(self, file: RemoteFile) -> bool:
        """In the cache, with the right length; whether it is right is not looked at."""
        places = (self.blobs / file.hash, self.snapshot / file.path)
        return any(place.is_file() and place.stat().st_size == file.size for place in places)

    @property
    def missing(self) -> int:
        """Bytes that are not here."""
        return sum(file.size for file in self.wanted if not self.is_here(file))


def listing(order: Order, token: str | None) -> Listing:
    """Raises what huggingface_hub does, and RepositoryNotFound, InvalidModel or InvalidSae where nothing is wanted."""
    asked = order.asked
    info = HfApi().model_info(
        asked.repository,
        revision=asked.revision,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        token=token or False,
    )
    files = [_file(sibling) for sibling in info.siblings or ()]
    names = _wanted({file.path for file in files}, order)
    wanted = sorted((file for file in files if file.path in names), key=lambda file: (file.size, file.path))
    if all(file.path.endswith(_NO_WEIGHTS) for file in wanted):
        raise _nothing(order, files)
    assert info.sha is not None
    others = tuple(file for file in files if file not in wanted)
    return Listing(asked.repository, info.sha, tuple(wanted), others, info)


def _file(sibling: RepoSibling) -> RemoteFile:
    found = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    return RemoteFile(sibling.rfilename, sibling.size or 0, found or "")


def _wanted(paths: set[str], order: Order) -> set[str]:
    """By the order's patterns; of another library's SAE what it takes to convert it, a pickle if that is how it is."""
    foreign = recognise(order.asked.path, paths) if order.asked.kind == "sae" else None
    return {*foreign.files} if foreign else {path for path in paths if _is_wanted(path, order)}


def _is_wanted(path: str, order: Order) -> bool:
    return (
        ".." not in PurePosixPath(path).parts and _matches(path, order.patterns) and not _matches(path, order.but_not)
    )


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _nothing(order: Order, files: Iterable[RemoteFile]) -> MillmError:
    asked = order.asked
    if asked.kind == "model":
        return InvalidModel(
            f"{asked.repository} has no .safetensors weights, the only kind that cannot run code when read"
        )
    if not any(file.path.startswith(f"{asked.path}/") for file in files):
        return RepositoryNotFound(
            f"{asked.repository} has no SAE in {asked.path!r}; look at its files at {page(asked)}"
        )
    return InvalidSae(
        f"no SAE found in {asked.name}: it holds no .safetensors or .npz weights"
        " (a pickle such as .pt is not read, because it can run code: convert it)"
    )
