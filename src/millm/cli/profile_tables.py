"""Profiles on the screen: entries, a profile or a comparison in, something to print out. Knows no server."""

from collections.abc import Sequence

from rich.console import Group, RenderableType

from millm.cli.columns import details_table, plain_text, table
from millm.cli.ids import IdText
from millm.cli.profile_diff import SteeringDifference, feature_strength_text
from millm.cli.profile_import import ImportRow
from millm.cli.quantities import format_count
from millm.cli.visible import replace_control_chars
from millm.profiles.schema import Profile
from millm.profiles.store import ProfileEntry

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
