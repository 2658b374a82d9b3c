"""Profiles on the screen: entries, a profile or a comparison in, something to print out. Knows no server.

What two steerings do differently: by feature, and what holds for all of them.

What is imported: a document from a file, from stdin or behind an address; and what becomes of each thing in it.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from rich.console import Group, RenderableType

from millm.cli.terminal import IdText, details_table, format_count, plain_text, replace_control_chars, table
from millm.errors import CannotStart
from millm.profiles.schema import Profile, ProfileFeature, SteeringRequest
from millm.profiles.store import ProfileEntry


class SteeringDifference(NamedTuple):
    what: str
    before: str | None
    """None: it has none."""
    after: str | None


def diff_steerings(before: SteeringRequest, after: SteeringRequest) -> list[SteeringDifference]:
    """In the order of SAEs and features, then the rest."""
    left, right = _strength_texts(before), _strength_texts(after)
    if not (_sae_names(left) and _sae_names(right)) and len(_sae_names(left) | _sae_names(right)) <= 1:
        left, right = (
            _without_sae_names(left),
            _without_sae_names(right),
        )  # one of them leaves open which SAE is meant; the other has one
    found = [
        SteeringDifference(
            " ".join(filter(None, ("feature", str(index), sae))), left.get((sae, index)), right.get((sae, index))
        )
        for sae, index in sorted({*left, *right})
    ]
    found += [
        SteeringDifference(
            name.replace("_", " "), _text_or_none(getattr(before, name)), _text_or_none(getattr(after, name))
        )
        for name in ("positions", "skip", "skip_constrained", "reference_norm")
    ]
    return [one for one in found if one.before != one.after]


def feature_strength_text(feature: ProfileFeature) -> str:
    """`+80 raw`, or what else is done with it."""
    if feature.mode == "ablate":
        return "ablate"
    mode = "" if feature.mode == "add" else f"{feature.mode} "
    return f"{mode}{feature.strength:+g} {feature.unit}"


def _strength_texts(steering: SteeringRequest) -> dict[tuple[str, int], str]:
    only = _only_sae(steering)
    return {(feature.sae or only, feature.index): feature_strength_text(feature) for feature in steering.features}


def _sae_names(strengths: Mapping[tuple[str, int], str]) -> set[str]:
    return {sae for sae, _ in strengths if sae}


def _without_sae_names(strengths: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    return {("", index): text for (_, index), text in strengths.items()}


def _only_sae(steering: SteeringRequest) -> str:
    """What a feature means that names no SAE, where the profile says."""
    saes = steering.saes if isinstance(steering, Profile) else ()
    return (saes[0].alias or "") if len(saes) == 1 else ""


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


OnConflict = Literal["refuse", "rename", "replace", "skip"]
ImportAction = Literal["added", "replaced", "skipped", "nothing"]


class SourceDocument(msgspec.Struct, frozen=True):
    name: str
    content: bytes


class UnresolvedSaeRow(msgspec.Struct, frozen=True):
    """What has to be said before something can be imported."""

    path: str
    id: str
    reason: str


class ImportRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one thing in a document has become, or would."""

    path: str
    """JSON path."""
    name: str
    did: ImportAction | None = None
    """None: not yet."""
    becomes: str = "profile"
    notes: tuple[str, ...] = ()
    unresolved: tuple[UnresolvedSaeRow, ...] = ()
    misfit: str | None = None


def read_document(source: str) -> SourceDocument:
    """`-` is stdin; of an address the address itself, which the server understands."""
    if source == "-":
        return SourceDocument("stdin", sys.stdin.buffer.read())
    if source.startswith(("http://", "https://")):
        return SourceDocument(source, source.encode())
    try:
        return SourceDocument(Path(source).name, Path(source).read_bytes())
    except OSError as error:
        raise CannotStart(f"{source} cannot be read ({error.strerror})") from error


NO_PROFILES_MESSAGE = "no profiles here; `millm demo` brings some, `millm profiles import FILE` adds one"
_DESCRIPTION_WIDTH = 34
"""Columns for a description."""


def profiles_table(entries: Sequence[ProfileEntry]) -> RenderableType:
    if not entries:
        return plain_text(NO_PROFILES_MESSAGE)
    rows = [
        (IdText(entry.name), format_count(entry.features), _profile_state_text(entry), _truncate(entry.description))
        for entry in entries
    ]
    return table(("NAME", ">FEATURES", "STATE", "DESCRIPTION"), rows)


def profile_details(profile: Profile) -> RenderableType:
    model = profile.model.repo_id if profile.model else None
    facts = details_table(
        [
            ("description", profile.description or None),
            ("model", model),
            *[("SAE", sae.alias or sae.hook_point or "any") for sae in profile.saes],
            ("positions", profile.positions),
            ("skip", profile.skip),
            ("watches", ", ".join(str(one.index) for one in profile.watch) or None),
            ("tags", ", ".join(profile.tags) or None),
            ("from", profile.provenance.source if profile.provenance else None),
        ]
    )
    rows = [(str(one.index), feature_strength_text(one), one.sae or "", one.label or "") for one in profile.features]
    return Group(IdText(profile.name), facts, plain_text(""), table((">FEATURE", "STRENGTH", "SAE", "LABEL"), rows))


def difference_table(differences: Sequence[SteeringDifference], before: str, after: str) -> RenderableType:
    if not differences:
        return plain_text("they steer alike")
    rows = [(one.what, one.before or "–", one.after or "–") for one in differences]
    return table(("WHAT", replace_control_chars(before), replace_control_chars(after)), rows)


def import_table(outcomes: Sequence[ImportRow]) -> RenderableType:
    rows = [(one.path, one.did or one.becomes, IdText(one.name)) for one in outcomes]
    notes = [plain_text(f"  {one.name}: {note}") for one in outcomes for note in _import_notes(one)]
    return Group(table(("ENTRY", "BECOMES", "NAME"), rows), *notes)


def _import_notes(row: ImportRow) -> list[str]:
    missing = [
        f"{one.path}: {one.id} is not known here ({one.reason}); say which SAE it is: --sae {one.id}=SAE"
        for one in row.unresolved
    ]
    return [*row.notes, *missing, *([row.misfit] if row.misfit else [])]


def _profile_state_text(entry: ProfileEntry) -> str:
    if entry.is_active:
        return "active"
    return "stored" if entry.model_id is None and entry.misfit is None else "misfit" if entry.misfit else "fits"


def _truncate(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _DESCRIPTION_WIDTH else f"{line[: _DESCRIPTION_WIDTH - 1]}…"
