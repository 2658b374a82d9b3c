"""Where models and SAEs lie, each with its id: Hugging Face's cache, folders the user linked, what ships with miLLM."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from millm.hub import cache
from millm.hub.cache import Asked, Revision
from millm.hub.entries import Origin
from millm.hub.sae_layout import by_folder, layout_of, saes_in
from millm.hub.tree import File, files_below


@dataclass(frozen=True)
class Place:
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
    inside: str = ""
    """An SAE's folder in the repository, or the file that it is."""
    layout: str | None = None
    """Of an SAE; None: what is there is none."""

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
    yield from map(_as_sae, _linked(links, builtin))
    for revision in cache.revisions(asked):
        for inside, (layout, files) in saes_in(revision.files).items():
            yield replace(_in_cache(revision, inside), files=files, layout=layout)


def imported_model(link: Path) -> Place:
    """The folder a link of the library leads to, under the link's name."""
    return _folder(link.name, "imported", link)


def imported_sae(link: Path) -> Place:
    return _as_sae(imported_model(link))


def _linked(links: Path, builtin: Mapping[str, Path]) -> Iterator[Place]:
    for name, folder in builtin.items():
        if folder.is_dir():  # the demo's is made when it is first asked for
            yield _folder(name, "builtin", folder)
    if links.is_dir():
        for link in sorted(links.iterdir()):
            if link.is_symlink():
                yield imported_model(link)


def _folder(name: str, origin: Origin, folder: Path) -> Place:
    try:
        return Place(name, origin, folder, files_below(folder))
    except FileNotFoundError:
        return Place(name, origin, folder, problem="the folder it was imported from is gone")
    except OSError as error:
        return Place(name, origin, folder, problem=f"its folder cannot be read ({error.strerror})")


def _as_sae(place: Place) -> Place:
    """The one right in the folder, whatever else is below it."""
    layout, files = saes_in(place.files).get("", (None, by_folder(place.files).get("", {})))
    return replace(place, files=files, layout=layout)


def _in_cache(revision: Revision, inside: str = "") -> Place:
    return Place(
        id=public_id(revision.repository, revision.revision, inside),
        origin="hub",
        folder=revision.folder / inside,
        files=revision.files,
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
