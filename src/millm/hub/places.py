"""Where models and SAEs lie, each with its id: Hugging Face's cache, folders the user linked, what ships with miLLM."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from millm.hub import cache
from millm.hub.cache import Asked, Revision
from millm.hub.entries import Origin
from millm.hub.sae_layout import layout_of
from millm.hub.tree import File, files_below


@dataclass(frozen=True)
class Place:
    """A folder that holds a model or an SAE, whole or not."""

    id: str
    origin: Origin
    folder: Path
    files: dict[str, File] = field(default_factory=dict)
    """Its own, by their paths in it; of an SAE those right in its folder."""
    problem: str | None = None
    """Why it cannot be looked into."""
    revision: Revision | None = None
    """What of the cache it is, or is part of."""
    inside: str = ""
    """An SAE's folder in the repository."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that find it; the first is its id."""
        if self.revision is None:
            return (self.id,)
        named = (*self.revision.refs, self.revision.commit)
        return tuple(public_id(self.revision.repository, name, self.inside) for name in named)


def public_id(repository: str, revision: str, inside: str = "") -> str:
    """As `hub.jobs.Asked.name`."""
    whole = f"{repository}/{inside}" if inside else repository
    return whole if revision == "main" else f"{whole}@{revision}"


def models(links: Path, builtin: Mapping[str, Path], asked: Asked) -> Iterator[Place]:
    yield from _linked(links, builtin)
    for revision in cache.revisions(asked):
        if revision.problem or _holds_model(revision.files):
            yield _in_cache(revision)


def saes(links: Path, builtin: Mapping[str, Path], asked: Asked) -> Iterator[Place]:
    yield from _linked(links, builtin, deep=False)
    for revision in cache.revisions(asked):
        for inside, files in by_folder(revision.files).items():
            if layout_of(files):
                yield _in_cache(revision, inside, files)


def imported(link: Path, *, deep: bool = True) -> Place:
    """The folder a link of the library leads to, under the link's name."""
    return _folder(link.name, "imported", link, deep=deep)


def by_folder(files: Mapping[str, File]) -> dict[str, dict[str, File]]:
    """Folder → the files right in it, by name."""
    found: dict[str, dict[str, File]] = {}
    for path, file in files.items():
        folder, _, name = path.rpartition("/")
        found.setdefault(folder, {})[name] = file
    return found


def _linked(links: Path, builtin: Mapping[str, Path], *, deep: bool = True) -> Iterator[Place]:
    for name, folder in builtin.items():
        yield _folder(name, "builtin", folder, deep=deep)
    if links.is_dir():
        for link in sorted(links.iterdir()):
            if link.is_symlink():
                yield imported(link, deep=deep)


def _folder(name: str, origin: Origin, folder: Path, *, deep: bool) -> Place:
    try:
        files = files_below(folder)
    except FileNotFoundError:
        return Place(name, origin, folder, problem="the folder it was imported from is gone")
    except OSError as error:
        return Place(name, origin, folder, problem=f"its folder cannot be read ({error.strerror})")
    return Place(name, origin, folder, files if deep else by_folder(files).get("", {}))


def _in_cache(revision: Revision, inside: str = "", files: dict[str, File] | None = None) -> Place:
    return Place(
        id=public_id(revision.repository, revision.revision, inside),
        origin="hub",
        folder=revision.folder / inside,
        files=revision.files if files is None else files,
        problem=revision.problem,
        revision=revision,
        inside=inside,
    )


def _holds_model(files: Mapping[str, File]) -> bool:
    """Also of what has only begun to arrive: its weights, or a link to nothing, without a config.json yet."""
    root = by_folder(files).get("", {})
    if layout_of(root):
        return False
    return "config.json" in root or any(".safetensors" in name for name in root)
