"""Profiles on the screen: entries, a profile or a comparison in, something to print out. Knows no server."""

from collections.abc import Sequence

from rich.console import Group, RenderableType

from millm.cli.columns import plain, sheet, table
from millm.cli.ids import Id
from millm.cli.profile_diff import Difference, knob_text
from millm.cli.profile_import import Outcome
from millm.cli.quantities import number
from millm.cli.visible import visible
from millm.profiles.contract import Profile
from millm.profiles.entry import ProfileEntry

NO_PROFILES = "no profiles here; `millm demo` brings some, `millm profiles import FILE` adds one"
_ROOM = 34
"""Columns for a description."""


def entries_table(entries: Sequence[ProfileEntry]) -> RenderableType:
    if not entries:
        return plain(NO_PROFILES)
    rows = [(Id(entry.name), number(entry.features), _state(entry), _short(entry.description)) for entry in entries]
    return table(("NAME", ">FEATURES", "STATE", "DESCRIPTION"), rows)


def profile_sheet(profile: Profile) -> RenderableType:
    model = profile.model.repo_id if profile.model else None
    facts = sheet(
        [
            ("description", profile.description or None),
            ("model", model),
            *[("SAE", sae.called or sae.hook_point or "any") for sae in profile.saes],
            ("positions", profile.positions),
            ("skip", profile.skip),
            ("watches", ", ".join(str(one.index) for one in profile.watch) or None),
            ("tags", ", ".join(profile.tags) or None),
            ("from", profile.provenance.source if profile.provenance else None),
        ]
    )
    rows = [(str(one.index), knob_text(one), one.sae or "", one.label or "") for one in profile.features]
    return Group(Id(profile.name), facts, plain(""), table((">FEATURE", "STRENGTH", "SAE", "LABEL"), rows))


def difference_table(differences: Sequence[Difference], before: str, after: str) -> RenderableType:
    if not differences:
        return plain("they steer alike")
    rows = [(one.what, one.before or "–", one.after or "–") for one in differences]
    return table(("WHAT", visible(before), visible(after)), rows)


def outcomes_table(outcomes: Sequence[Outcome]) -> RenderableType:
    rows = [(one.path, one.did or one.becomes, Id(one.name)) for one in outcomes]
    notes = [plain(f"  {one.name}: {note}") for one in outcomes for note in _notes(one)]
    return Group(table(("ENTRY", "BECOMES", "NAME"), rows), *notes)


def _notes(outcome: Outcome) -> list[str]:
    missing = [
        f"{one.path}: {one.id} is not known here ({one.reason}); say which SAE it is: --sae {one.id}=SAE"
        for one in outcome.unresolved
    ]
    return [*outcome.notes, *missing, *([outcome.misfit] if outcome.misfit else [])]


def _state(entry: ProfileEntry) -> str:
    if entry.is_active:
        return "active"
    return "stored" if entry.model_id is None and entry.misfit is None else "misfit" if entry.misfit else "fits"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _ROOM else f"{line[: _ROOM - 1]}…"
