"""Tables of profiles: the list, one profile, the differences of two, and the outcome of an import."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
from rich.console import Group, RenderableType

from millm.cli.terminal import UNKNOWN, IdText, format_count, plain_text, sheet, table, truncate
from millm.profiles.schema import Profile, ProfileFeature, SteeringRequest
from millm.profiles.store import ProfileEntry

NO_PROFILES_MESSAGE = "no profiles here; `millm demo` brings some, `millm profiles import FILE` adds one"
_DESCRIPTION_WIDTH = 34
"""Characters of a description in the list."""

ImportAction = Literal["added", "replaced", "skipped", "nothing"]


class UnresolvedSaeRow(msgspec.Struct, frozen=True):
    """A foreign id that has to be resolved before the import."""

    path: str
    id: str
    reason: str


class ImportRow(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one entry of a document, or its preview."""

    path: str
    """JSON path."""
    name: str
    did: ImportAction | None = None
    """None in a preview."""
    becomes: str = "profile"
    notes: tuple[str, ...] = ()
    unresolved: tuple[UnresolvedSaeRow, ...] = ()
    misfit: str | None = None


class SteeringDifference(NamedTuple):
    what: str
    before: str | None
    """None: absent."""
    after: str | None


def profiles_table(entries: Sequence[ProfileEntry]) -> RenderableType:
    if not entries:
        return plain_text(NO_PROFILES_MESSAGE)
    rows = [
        (
            IdText(entry.name), format_count(entry.features), _profile_state_text(entry),
            truncate(" ".join(entry.description.split()), _DESCRIPTION_WIDTH),
        )
        for entry in entries
    ]  # fmt: skip
    return table(("NAME", ">FEATURES", "STATE", "DESCRIPTION"), rows)


def profile_details(profile: Profile) -> RenderableType:
    rows = [(str(one.index), feature_strength_text(one), one.sae or "", one.label or "") for one in profile.features]
    return sheet(
        profile.name,
        [
            ("description", profile.description or None),
            ("model", profile.model.repo_id if profile.model else None),
            *[("SAE", sae.alias or sae.hook_point or "any") for sae in profile.saes],
            ("positions", profile.positions),
            ("skip", profile.skip),
            ("watches", ", ".join(str(one.index) for one in profile.watch) or None),
            ("tags", ", ".join(profile.tags) or None),
            ("from", profile.provenance.source if profile.provenance else None),
        ],
        "",
        table((">FEATURE", "STRENGTH", "SAE", "LABEL"), rows),
    )


def difference_table(differences: Sequence[SteeringDifference], before: str, after: str) -> RenderableType:
    if not differences:
        return plain_text("no differences")
    return table(
        ("WHAT", before, after), [(one.what, one.before or UNKNOWN, one.after or UNKNOWN) for one in differences]
    )


def import_table(outcomes: Sequence[ImportRow]) -> RenderableType:
    rows = [(one.path, one.did or one.becomes, IdText(one.name)) for one in outcomes]
    notes = [plain_text(f"  {one.name}: {note}") for one in outcomes for note in _import_notes(one)]
    return Group(table(("ENTRY", "BECOMES", "NAME"), rows), *notes)


def _import_notes(row: ImportRow) -> list[str]:
    unresolved = [
        f"{one.path}: {one.id} is not known here ({one.reason}); say which SAE it is: --sae {one.id}=SAE"
        for one in row.unresolved
    ]
    return [*row.notes, *unresolved, *([row.misfit] if row.misfit else [])]


def _profile_state_text(entry: ProfileEntry) -> str:
    if entry.is_active:
        return "active"
    if entry.misfit is not None:
        return "misfit"
    return "stored" if entry.model_id is None else "fits"


def diff_steerings(before: SteeringRequest, after: SteeringRequest) -> list[SteeringDifference]:
    """Differences by SAE and feature, then by field."""
    left, right = _strength_texts(before), _strength_texts(after)
    if not (_sae_names(left) and _sae_names(right)) and len(_sae_names(left) | _sae_names(right)) <= 1:
        # One steering leaves its SAE open, and the other has only one: compare by feature.
        left, right = _without_sae_names(left), _without_sae_names(right)
    differences = [
        SteeringDifference(f"feature {index} {sae}".rstrip(), left.get((sae, index)), right.get((sae, index)))
        for sae, index in sorted({*left, *right})
    ]
    for field in ("positions", "skip", "skip_constrained", "reference_norm"):
        values = (getattr(steering, field) for steering in (before, after))
        texts = (None if value is None else str(value) for value in values)
        differences.append(SteeringDifference(field.replace("_", " "), *texts))
    return [one for one in differences if one.before != one.after]


def feature_strength_text(feature: ProfileFeature) -> str:
    """`+80 raw`, `clamp +5 raw` or `ablate`."""
    if feature.mode == "ablate":
        return "ablate"
    mode = "" if feature.mode == "add" else f"{feature.mode} "
    return f"{mode}{feature.strength:+g} {feature.unit}"


def _strength_texts(steering: SteeringRequest) -> dict[tuple[str, int], str]:
    """(SAE, feature index) → strength; a feature that names no SAE belongs to the profile's only one."""
    saes = steering.saes if isinstance(steering, Profile) else ()
    default = (saes[0].alias or "") if len(saes) == 1 else ""
    return {(feature.sae or default, feature.index): feature_strength_text(feature) for feature in steering.features}


def _sae_names(strengths: Mapping[tuple[str, int], str]) -> set[str]:
    return {sae for sae, _ in strengths if sae}


def _without_sae_names(strengths: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    return {("", index): text for (_, index), text in strengths.items()}
