"""Goodfire's Variant (SDK 0.3): edits of features, which its server adds ("nudges") to activations in units of its own.

{"base_model", "edits": [{"feature_id", "feature_label", "index_in_sae", "value"}], "scopes": [...]}
"""

from millm.profiles.contract import ProfileFeature
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import Draft, Saes, entry, feature, foreign, label
from millm.profiles.importers.values import Entry, Known, Unresolved

FORMAT = "Goodfire variant"
_SAE = "goodfire"


def recognised(node: Node) -> bool:
    return "base_model" in node and "edits" in node


def entries(node: Node, known: Known) -> list[Entry]:
    """One profile; what depends on a condition (`scopes`) is left out, which is told."""
    model = (node / "base_model").required()
    features: list[ProfileFeature] = []
    unresolved: list[Unresolved] = []
    for edit in node / "edits":
        name = label(edit / "feature_label")
        if (edit / "index_in_sae").value is None:
            unresolved.append(_nameless(edit, name))
            continue
        strength = (edit / "value").number()
        features.append(feature(edit, (edit / "index_in_sae").whole(), strength, label=name, unit="max_act"))
        (edit / "value").note("a share of the feature's largest activation (`max_act`), which is the nearest here")
    if list(node / "scopes"):
        (node / "scopes").note("what depends on a condition cannot be done here: left out")
    saes = foreign(node / "base_model", f"{_SAE}/{model}", known)
    more = {"model": model, "provenance": {"source": "goodfire", "format": "variant"}}
    title = " + ".join(one.label or f"feature {one.index}" for one in features)[:128] or "variant"
    draft = Draft(node, title, features, Saes(saes.references, (*saes.unresolved, *unresolved)), more)
    return [entry(draft)]


def _nameless(edit: Node, name: str | None) -> Unresolved:
    id = (edit / "feature_id").text() or name or "?"
    edit.note(f"{name or id} at {(edit / 'value').number():g}: in no profile before its index is known")
    return Unresolved(edit.place, "feature", id, f"{name or id} has no index_in_sae, so that nobody knows which it is")
