"""Where models and SAEs lie, each with its id: Hugging Face's cache, folders the user linked, what ships with miLLM."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from millm.hub import cache
from millm.hub.cache import BranchNames, Revision
from millm.hub.entries import Origin
from millm.hub.sae_layout import detect_layout, find_saes, group_by_folder
from millm.hub.tree import File, files_below


@dataclass(frozen=True)
class LibraryLocation:
    """A folder that holds a model or an SAE, whole or not."""

    id: str
    origin: Origin
    folder: Path
    files: dict[str, File] = field(default_factory=dict)
    """Its own, by their paths in it; of an SAE those right in its folder, or those it takes to convert it."""
    problem: str | None = None
    """Why it cannot be looked into."""
    revision: Revision | None = None
    """What of the cache it is, or is part of."""
    subpath: str = ""
    """An SAE's folder in the repository, or the file that it is."""
    layout: str | None = None
    """Of an SAE; None: what is there is none."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that find it; the first is its id."""
        if self.revision is None:
            return (self.id,)
        named = (*self.revision.refs, self.revision.commit)
        return tuple(public_id(self.revision.repository, name, self.subpath) for name in named)


def public_id(repository: str, revision: str, subpath: str = "") -> str:
    """As `hub.jobs.Asked.name`."""
    whole = f"{repository}/{subpath}" if subpath else repository
    return whole if revision == "main" else f"{whole}@{revision}"


def scan_models(links: Path, builtin: Mapping[str, Path], branches: BranchNames) -> Iterator[LibraryLocation]:
    yield from _scan_links(links, builtin)
    for revision in cache.scan_revisions(branches):
        if revision.problem or _holds_model(revision.files):
            yield _cached_location(revision)


def scan_saes(links: Path, builtin: Mapping[str, Path], branches: BranchNames) -> Iterator[LibraryLocation]:
    yield from map(_with_sae_layout, _scan_links(links, builtin))
    for revision in cache.scan_revisions(branches):
        for inside, (layout, files) in find_saes(revision.files).items():
            yield replace(_cached_location(revision, inside), files=files, layout=layout)


def read_model_link(link: Path) -> LibraryLocation:
    """The folder a link of the library leads to, under the link's name."""
    return _scan_folder(link.name, "imported", link)


def read_sae_link(link: Path) -> LibraryLocation:
    return _with_sae_layout(read_model_link(link))


def _scan_links(links: Path, builtin: Mapping[str, Path]) -> Iterator[LibraryLocation]:
    for name, folder in builtin.items():
        if folder.is_dir():  # the demo's is made when it is first asked for
            yield _scan_folder(name, "builtin", folder)
    if links.is_dir():
        for link in sorted(links.iterdir()):
            if link.is_symlink():
                yield read_model_link(link)


def _scan_folder(name: str, origin: Origin, folder: Path) -> LibraryLocation:
    try:
        return LibraryLocation(name, origin, folder, files_below(folder))
    except FileNotFoundError:
        return LibraryLocation(name, origin, folder, problem="the folder it was imported from is gone")
    except OSError as error:
        return LibraryLocation(name, origin, folder, problem=f"its folder cannot be read ({error.strerror})")


def _with_sae_layout(location: LibraryLocation) -> LibraryLocation:
    """The one right in the folder, whatever else is below it."""
    layout, files = find_saes(location.files).get("", (None, group_by_folder(location.files).get("", {})))
    return replace(location, files=files, layout=layout)


def _cached_location(revision: Revision, subpath: str = "") -> LibraryLocation:
    return LibraryLocation(
        id=public_id(revision.repository, revision.name, subpath),
        origin="hub",
        folder=revision.folder / subpath,
        files=revision.files,
        problem=revision.problem,
        revision=revision,
        subpath=subpath,
    )


def _holds_model(files: Mapping[str, File]) -> bool:
    """Also of what has only begun to arrive: its weights, or a link to nothing, without a config.json yet."""
    root = group_by_folder(files).get("", {})
    if detect_layout(root):
        return False
    return "config.json" in root or any(".safetensors" in name for name in root)
