"""What an import finds, as plain values: entries, what they become, and all that cannot be carried over."""

from dataclasses import dataclass, field
from typing import Literal

from millm.hub.labels import Label
from millm.profiles.contract import Profile

EntryKind = Literal["profile", "labels", "nothing"]


@dataclass(frozen=True)
class UnresolvedImportItem:
    """Something that has to be said before an entry can be taken in."""

    path: str
    """In the document: `$.sae_id`."""
    kind: Literal["sae", "feature", "vector"]
    id: str
    """As the document calls it."""
    reason: str


@dataclass(frozen=True)
class ResidualVector:
    """A direction in the residual stream, to be told as features of an SAE that is attached."""

    path: str
    hook_point: str
    """As SAELens names it."""
    layer: int
    values: tuple[float, ...]
    """In residual units, the strength multiplied in."""


@dataclass(frozen=True)
class DocumentEntry:
    """One thing of a document."""

    path: str
    becomes: EntryKind
    name: str
    profile: Profile | None = None
    labels: tuple[Label, ...] = ()
    sae: str | None = None
    """Whose labels these are: our id."""
    vectors: tuple[ResidualVector, ...] = ()
    notes: tuple[str, ...] = ()
    """`path: what is changed or left out`."""
    unresolved: tuple[UnresolvedImportItem, ...] = ()
    incompatibility: str | None = None
    """Why it could not be applied now."""


@dataclass(frozen=True)
class ParsedDocument:
    """All that a document holds."""

    format: str
    entries: tuple[DocumentEntry, ...]
    notes: tuple[str, ...] = ()
    """Of what belongs to no entry."""


@dataclass(frozen=True)
class KnownSaes:
    """What is known here of other tools' SAEs."""

    ids: dict[str, str] = field(default_factory=dict)
    """Foreign id → id of an SAE of ours."""
