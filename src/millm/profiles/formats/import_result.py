"""Building blocks of the importers: readers for common fields, and profiles checked against the schema."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from millm.errors import InvalidImport
from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node, UnresolvedReference
from millm.profiles.schema import MAX_NAME_LENGTH, Profile, ProfileFeature, SaeReference, split_sae_id, validate_name

MAX_LABEL_LENGTH = 500
MAX_LAYER = 10_000


@dataclass(frozen=True)
class SaeReferences:
    """The SAEs of a profile, and the foreign ids that are not resolved yet."""

    references: tuple[SaeReference, ...] = ()
    unresolved: tuple[UnresolvedReference, ...] = ()

    @classmethod
    def joined(cls, parts: Collection["SaeReferences"]) -> "SaeReferences":
        return cls(
            tuple(one for part in parts for one in part.references),
            tuple(one for part in parts for one in part.unresolved),
        )


@dataclass(frozen=True)
class ProfileDraft:
    """The contents of a profile before validation."""

    node: Node
    name: str
    features: Sequence[ProfileFeature]
    saes: SaeReferences = field(default_factory=SaeReferences)
    fields: dict[str, Any] = field(default_factory=dict)
    """Further fields of the schema; None is left out."""


def build_entry(draft: ProfileDraft) -> DocumentEntry:
    """Raises InvalidImport with the first validation error."""
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
    """The valid name closest to `text`; a difference is noted."""
    printable = "".join(" " if char in "/\\" or not char.isprintable() else char for char in text)
    try:
        name = validate_name(" ".join(printable.split())[:MAX_NAME_LENGTH].strip())
    except ValueError:
        name = "imported"
    if name != text:
        node.note(f"its name becomes {name!r}: a name has 1 to {MAX_NAME_LENGTH} characters without slashes")
    return name


def read_label(node: Node, max_length: int = MAX_LABEL_LENGTH) -> str | None:
    """A display text, cut to `max_length` with a note."""
    text = node.text()
    if text and len(text) > max_length:
        node.note(f"cut to {max_length} characters")
    return text[:max_length] if text else None


def read_feature(node: Node, index: str) -> ProfileFeature:
    """A feature with its index in the field `index`, a `strength`, and an optional `label` and `color`."""
    return build_feature(
        node,
        (node / index).integer(),
        (node / "strength").number(),
        label=read_label(node / "label"),
        color=read_label(node / "color", 32),
    )


def feature_names(features: Iterable[ProfileFeature]) -> str:
    """A profile name from the labels, or numbers, of the features."""
    return " + ".join(one.label or f"feature {one.index}" for one in features)[:MAX_NAME_LENGTH]


def unique_features(features: Iterable[ProfileFeature], node: Node) -> tuple[ProfileFeature, ...]:
    """Drop repeated features. Raises InvalidImport where two entries of one feature differ."""
    unique: dict[tuple[str | None, int], ProfileFeature] = {}
    for feature in features:
        key = (feature.sae, feature.index)
        if key in unique and unique[key] != feature:
            raise InvalidImport(
                f"{node.location}: feature {feature.index} is given twice, differently; leave one of them out"
            )
        if key in unique:
            node.note(f"feature {feature.index} is given twice alike: once is kept")
        unique[key] = feature
    return tuple(unique.values())


def build_feature(node: Node, index: int, strength: float, **fields: Any) -> ProfileFeature:
    try:
        return ProfileFeature(index=index, strength=strength, **fields)
    except ValidationError as error:
        raise InvalidImport(f"{node.location}: {first_error(error)}") from error


def reference_from_id(sae_id: str, layer: int | None = None) -> SaeReference:
    """The reference of a library id, `owner/name/path/inside@revision` or a local name."""
    repo_id, path, revision = split_sae_id(sae_id)
    return SaeReference(name=sae_id, repo_id=repo_id, path=path, revision=revision, layer=layer)


def resolve_foreign_sae(node: Node, sae_id: str, known: KnownSaes, layer: int | None = None) -> SaeReferences:
    """The SAE that another tool's id stands for; unresolved where `known` does not have the id."""
    if library_id := known.ids.get(sae_id):
        node.note(f"{sae_id} is {library_id} here")
        return SaeReferences((reference_from_id(library_id, layer),))
    return SaeReferences((SaeReference(name=sae_id[:512], layer=layer),), (unresolved_sae(node, sae_id),))


def unresolved_sae(node: Node, sae_id: str) -> UnresolvedReference:
    reason = f"say once which SAE of ours it is: ?sae={sae_id}=<id>"
    return UnresolvedReference(node.location, "sae", sae_id, reason)
