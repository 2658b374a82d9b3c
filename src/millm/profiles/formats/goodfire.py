"""Goodfire's Variant (SDK 0.3): feature edits that its server adds ("nudges") to activations, in its own units.

{"base_model", "edits": [{"feature_id", "feature_label", "index_in_sae", "value"}], "scopes": [...]}
"""

from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node, UnresolvedReference
from millm.profiles.formats.import_result import (
    ProfileDraft,
    SaeReferences,
    build_entry,
    build_feature,
    feature_names,
    read_label,
    resolve_foreign_sae,
)
from millm.profiles.schema import ProfileFeature

FORMAT = "Goodfire variant"
_SAE_PREFIX = "goodfire"


def matches(node: Node) -> bool:
    return "base_model" in node and "edits" in node


def read_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    """One profile; conditional edits (`scopes`) are left out with a note."""
    model = (node / "base_model").required_text()
    features: list[ProfileFeature] = []
    unresolved: list[UnresolvedReference] = []
    for edit in node / "edits":
        name = read_label(edit / "feature_label")
        if (edit / "index_in_sae").value is None:
            unresolved.append(_unresolved_edit(edit, name))
            continue
        strength = (edit / "value").number()
        features.append(build_feature(edit, (edit / "index_in_sae").integer(), strength, label=name, unit="max_act"))
        (edit / "value").note("a share of the feature's largest activation (`max_act`), which is the nearest here")
    if list(node / "scopes"):
        (node / "scopes").note("what depends on a condition cannot be done here: left out")
    saes = resolve_foreign_sae(node / "base_model", f"{_SAE_PREFIX}/{model}", known)
    more = {"model": model, "provenance": {"source": "goodfire", "format": "variant"}}
    title = feature_names(features) or "variant"
    draft = ProfileDraft(node, title, features, SaeReferences(saes.references, (*saes.unresolved, *unresolved)), more)
    return [build_entry(draft)]


def _unresolved_edit(edit: Node, name: str | None) -> UnresolvedReference:
    id = (edit / "feature_id").text() or name or "?"
    edit.note(f"{name or id} at {(edit / 'value').number():g}: in no profile before its index is known")
    return UnresolvedReference(
        edit.location, "feature", id, f"{name or id} has no index_in_sae, so its feature is unknown"
    )
