"""A profile out of what an importer has read: names and labels that fit, features that do not contradict each other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from millm.errors import InvalidImport
from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node, UnresolvedImportItem
from millm.profiles.schema import MAX_NAME_LENGTH, Profile, ProfileFeature, SaeReference, validate_name

MAX_LABEL_LENGTH = 500
_MAX_COLOR_LENGTH = 32


@dataclass(frozen=True)
class SaeReferences:
    """The SAEs of a profile, and those that nobody has named yet."""

    references: tuple[SaeReference, ...] = ()
    unresolved: tuple[UnresolvedImportItem, ...] = ()


@dataclass(frozen=True)
class ProfileDraft:
    """All that a profile will be made of."""

    node: Node
    name: str
    features: Sequence[ProfileFeature]
    saes: SaeReferences = field(default_factory=SaeReferences)
    fields: dict[str, Any] = field(default_factory=dict)
    """Further fields of the contract."""


def build_entry(draft: ProfileDraft) -> DocumentEntry:
    """Raises InvalidImport saying what is wrong."""
    name = valid_profile_name(draft.name, draft.node)
    fields = {key: value for key, value in draft.fields.items() if value is not None}
    try:
        profile = Profile(
            name=name, features=unique_features(draft.features, draft.node), saes=draft.saes.references, **fields
        )
    except ValidationError as error:
        raise InvalidImport(f"{draft.node.location}: {first_error(error)}") from error
    return DocumentEntry(draft.node.location, "profile", profile.name, profile, unresolved=draft.saes.unresolved)


def first_error(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def valid_profile_name(text: str, node: Node) -> str:
    """As near to it as a profile's name can be; a change is told."""
    kept = "".join(" " if letter in "/\\" or not letter.isprintable() else letter for letter in text)
    wanted = " ".join(kept.split())[:MAX_NAME_LENGTH].strip()
    try:
        name = validate_name(wanted)
    except ValueError:
        name = "imported"
    if name != text:
        node.note(f"its name becomes {name!r}: a name has 1 to {MAX_NAME_LENGTH} characters without slashes")
    return name


def read_label(node: Node, max_length: int = MAX_LABEL_LENGTH) -> str | None:
    """A text that is shown; one that is too long is cut, which is told."""
    text = node.text()
    if text and len(text) > max_length:
        node.note(f"cut to {max_length} characters")
    return text[:max_length] if text else None


def read_color(node: Node) -> str | None:
    return read_label(node, _MAX_COLOR_LENGTH)


def unique_features(features: Iterable[ProfileFeature], node: Node) -> tuple[ProfileFeature, ...]:
    """A feature that is given twice alike is one; given twice and otherwise, nobody knows what is meant."""
    found: dict[tuple[str | None, int], ProfileFeature] = {}
    for feature in features:
        key = (feature.sae, feature.index)
        if key in found and found[key] != feature:
            raise InvalidImport(
                f"{node.location}: feature {feature.index} is given twice, differently; leave one of them out"
            )
        if key in found:
            node.note(f"feature {feature.index} is given twice alike: once is kept")
        found[key] = feature
    return tuple(found.values())


def build_feature(node: Node, index: int, strength: float, **fields: Any) -> ProfileFeature:
    try:
        return ProfileFeature(index=index, strength=strength, **fields)
    except ValidationError as error:
        raise InvalidImport(f"{node.location}: {first_error(error)}") from error


def reference_from_id(sae_id: str, *, name: str | None = None, layer: int | None = None) -> SaeReference:
    """An SAE by our id: `owner/name/path/inside@revision`, or a local name."""
    place, _, revision = sae_id.partition("@")
    owner, *rest = place.split("/")
    if not rest:
        return SaeReference(name=sae_id, layer=layer)
    return SaeReference(
        name=name or sae_id,
        repo_id=f"{owner}/{rest[0]}",
        path="/".join(rest[1:]) or None,
        revision=revision or None,
        layer=layer,
    )


def resolve_foreign_sae(node: Node, sae_id: str, known: KnownSaes, layer: int | None = None) -> SaeReferences:
    """Another tool's own id of an SAE, which means something here once somebody has said what."""
    if found := known.ids.get(sae_id):
        node.note(f"{sae_id} is {found} here")
        return SaeReferences((reference_from_id(found, layer=layer),))
    reason = f"say once which SAE of ours it is: ?sae={sae_id}=<id>"
    return SaeReferences(
        (SaeReference(name=sae_id[:512], layer=layer),), (UnresolvedImportItem(node.location, "sae", sae_id, reason),)
    )
