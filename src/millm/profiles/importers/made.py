"""A profile out of what an importer has read: names and labels that fit, features that do not contradict each other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from millm.errors import InvalidImport
from millm.profiles.contract import Profile, ProfileFeature, SaeReference
from millm.profiles.importers.document import Node
from millm.profiles.importers.values import Entry, Known, Unresolved
from millm.profiles.names import LONGEST, checked

LABEL = 500
_COLOURS = 32


@dataclass(frozen=True)
class Saes:
    """The SAEs of a profile, and those that nobody has named yet."""

    references: tuple[SaeReference, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()


@dataclass(frozen=True)
class Draft:
    """All that a profile will be made of."""

    at: Node
    name: str
    features: Sequence[ProfileFeature]
    saes: Saes = field(default_factory=Saes)
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of the contract."""


def entry(draft: Draft) -> Entry:
    """Raises InvalidImport saying what is wrong."""
    name = fitting_name(draft.name, draft.at)
    fields = {key: value for key, value in draft.more.items() if value is not None}
    try:
        profile = Profile(
            name=name, features=without_repetitions(draft.features, draft.at), saes=draft.saes.references, **fields
        )
    except ValidationError as error:
        raise InvalidImport(f"{draft.at.place}: {complaint(error)}") from error
    return Entry(draft.at.place, "profile", profile.name, profile, unresolved=draft.saes.unresolved)


def complaint(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def fitting_name(text: str, at: Node) -> str:
    """As near to it as a profile's name can be; a change is told."""
    kept = "".join(" " if letter in "/\\" or not letter.isprintable() else letter for letter in text)
    wanted = " ".join(kept.split())[:LONGEST].strip()
    try:
        name = checked(wanted)
    except ValueError:
        name = "imported"
    if name != text:
        at.note(f"its name becomes {name!r}: a name has 1 to {LONGEST} characters without slashes")
    return name


def label(node: Node, longest: int = LABEL) -> str | None:
    """A text that is shown; one that is too long is cut, which is told."""
    text = node.text()
    if text and len(text) > longest:
        node.note(f"cut to {longest} characters")
    return text[:longest] if text else None


def colour(node: Node) -> str | None:
    return label(node, _COLOURS)


def without_repetitions(features: Iterable[ProfileFeature], at: Node) -> tuple[ProfileFeature, ...]:
    """A feature that is given twice alike is one; given twice and otherwise, nobody knows what is meant."""
    found: dict[tuple[str | None, int], ProfileFeature] = {}
    for feature in features:
        key = (feature.sae, feature.index)
        if key in found and found[key] != feature:
            raise InvalidImport(
                f"{at.place}: feature {feature.index} is given twice, differently; leave one of them out"
            )
        if key in found:
            at.note(f"feature {feature.index} is given twice alike: once is kept")
        found[key] = feature
    return tuple(found.values())


def feature(node: Node, index: int, strength: float, **more: Any) -> ProfileFeature:
    try:
        return ProfileFeature(index=index, strength=strength, **more)
    except ValidationError as error:
        raise InvalidImport(f"{node.place}: {complaint(error)}") from error


def ours(sae: str, *, name: str | None = None, layer: int | None = None) -> SaeReference:
    """An SAE by our id: `owner/name/path/inside@revision`, or a local name."""
    place, _, revision = sae.partition("@")
    owner, *rest = place.split("/")
    if not rest:
        return SaeReference(name=sae, layer=layer)
    return SaeReference(
        name=name or sae,
        repo_id=f"{owner}/{rest[0]}",
        path="/".join(rest[1:]) or None,
        revision=revision or None,
        layer=layer,
    )


def foreign(at: Node, sae_id: str, known: Known, layer: int | None = None) -> Saes:
    """Another tool's own id of an SAE, which means something here once somebody has said what."""
    if found := known.saes.get(sae_id):
        at.note(f"{sae_id} is {found} here")
        return Saes((ours(found, layer=layer),))
    reason = f"say once which SAE of ours it is: ?sae={sae_id}=<id>"
    return Saes((SaeReference(name=sae_id[:512], layer=layer),), (Unresolved(at.place, "sae", sae_id, reason),))
