"""miStudio's documents: experiments, combined results, sweeps, browser state, and label archives for Neuronpedia.

An experiment compares features one by one, so each becomes a profile; a combined result is one profile. miStudio adds
strength × the unnormalised decoder row to every token, the first included. The export is a body for miStudio's
`POST /api/v1/steering/experiments`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from millm.hub.labels import Label
from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node
from millm.profiles.formats.export_result import SaeMeasurements, check_tokens, export_error, only_sae, raw_features
from millm.profiles.formats.import_result import (
    MAX_LABEL_LENGTH,
    MAX_LAYER,
    ProfileDraft,
    SaeReferences,
    build_entry,
    build_feature,
    feature_names,
    read_feature,
    read_label,
    resolve_foreign_sae,
    unresolved_sae,
)
from millm.profiles.schema import Profile, ProfileFeature

FORMAT = "miStudio"
DECODER_ROW_NOTE = (
    "miStudio multiplies the decoder row as it is, and miLLM a row of length 1: where the row's length is not 1,"
    " multiply the strength by it"
)
LABELS_FORMAT = "miStudio's export for Neuronpedia"
_FEATURES, _METADATA, _EXPLANATIONS = "features/", "metadata.json", "explanations/explanations.json"
COLOURS = ("teal", "blue", "purple", "amber")
MAX_STRENGTH = 300.0


def export_document(profile: Profile, measurements: SaeMeasurements) -> dict[str, Any]:
    """Raises InvalidProfile."""
    check_tokens(profile, FORMAT, "none")
    sae = only_sae(profile, FORMAT)
    features = raw_features(profile, FORMAT, measurements, max_strength=MAX_STRENGTH)
    if not 1 <= len(features) <= len(COLOURS):
        raise export_error(profile, f"it has {len(features)} features, and {FORMAT} takes 1 to {len(COLOURS)}")
    if sae.alias is None or sae.layer is None:
        raise export_error(profile, f"{FORMAT} needs the `name` (or `repo_id`) and the `layer` of its SAE in `saes`")
    configs = [
        {
            "feature_idx": one.index,
            "layer": sae.layer,
            "strength": one.strength,
            "label": one.label,
            "color": colour,
        }
        for one, colour in zip(features, _assign_colours(features), strict=True)
    ]
    prompt = profile.example_prompts[0] if profile.example_prompts else ""
    id = "millm-" + hashlib.sha256(profile.model_dump_json().encode()).hexdigest()[:32]
    result = {
        "name": profile.name,
        "description": profile.description or None,
        "combined_id": id,
        "comparison_id": id,
        "sae_id": sae.alias,
        "model_id": profile.model.repo_id if profile.model else None,
        "prompt": prompt,
        "features_applied": configs,
        "steered": [{"text": "", "feature_config": one, "metrics": None} for one in configs],
        "steered_multi": [],
    }
    return {"name": profile.name, "description": profile.description or None, "comparison_id": id,
            "tags": list(profile.tags), "result": result}  # fmt: skip


def _assign_colours(features: tuple[ProfileFeature, ...]) -> list[str]:
    """The feature's own colour where miStudio has it and no earlier feature uses it; else the next free one."""
    free = list(COLOURS)
    own: list[str | None] = []
    for one in features:
        own.append(one.color if one.color in free else None)
        if own[-1]:
            free.remove(own[-1])
    return [colour or free.pop(0) for colour in own]


def matches(node: Node) -> bool:
    return (
        ("selected_features" in node and "sae_id" in node)
        or "features_applied" in node
        or ("sweep_id" in node and "feature_idx" in node)
        or "selectedFeatures" in node / "state"
    )


def read_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    if "features_applied" in node:
        return [_combined_entry(node, known)]
    if "sweep_id" in node:
        return _sweep_entries(node, known)
    if "state" in node:
        return _browser_entries(node, known)
    return list(_experiment_entries(node, known))


def _experiment_entries(node: Node, known: KnownSaes) -> Iterator[DocumentEntry]:
    name = (node / "name").required_text()
    selected = list(node / "selected_features")
    steered = [one / "feature_config" for one in node / "results" / "steered_multi"]
    features = [at for at in selected or steered if isinstance(at.value, dict)]
    if not features:
        raise node.import_error("has no feature, in selected_features or results.steered_multi")
    for at in features:
        ending = f" · {_feature_title(at)}" if len(features) > 1 else ""
        yield _single_feature_entry(at, f"{name}{ending}", (node / "sae_id", known), _shared_fields(node, "experiment"))


def _feature_title(at: Node) -> str:
    return str((at / "label").value or f"feature {(at / 'feature_idx').value}")[:60]


def _shared_fields(node: Node, format: str, id: str = "id") -> dict[str, Any]:
    """The fields that all profiles of a document have in common."""
    prompt = (node / "prompt").text() or None
    model = node / "model_id"
    if model.value is not None:
        model.note("a name of miStudio's own: the profile names no model")
    return {
        "description": read_label(node / "description", 2000),
        "example_prompts": (prompt[:4000],) if prompt else None,
        "tags": tuple(tag.required_text()[:64] for tag in node / "tags") or None,
        "skip": "none",
        "provenance": {
            "source": "mistudio",
            "format": format,
            "id": (node / id).text(),
            "created": _read_datetime(node / "created_at"),
        },
    }


def _read_datetime(node: Node) -> datetime | None:
    text = node.text()
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise node.import_error("has to be a moment as ISO 8601 writes it") from error


def _single_feature_entry(at: Node, name: str, sae: tuple[Node, KnownSaes], more: dict[str, Any]) -> DocumentEntry:
    feature = read_feature(at, "feature_idx")
    at.note(DECODER_ROW_NOTE)
    return build_entry(ProfileDraft(at, name, [feature], _read_sae(*sae, _read_layer(at)), more))


def _read_layer(at: Node) -> int | None:
    return (at / "layer").integer(MAX_LAYER) if "layer" in at else None


def _read_sae(node: Node, known: KnownSaes, layer: int | None) -> SaeReferences:
    return resolve_foreign_sae(node, node.required_text(), known, layer)


def _combined_entry(node: Node, known: KnownSaes) -> DocumentEntry:
    applied = list(node / "features_applied")
    if not applied:
        raise node.import_error("applies no features")
    layers = sorted({(at / "layer").integer(MAX_LAYER) for at in applied})
    sae = node / "sae_id"
    id = sae.required_text()
    saes = {
        layer: resolve_foreign_sae(sae, id if len(layers) == 1 else f"{id}@{layer}", known, layer) for layer in layers
    }
    aliases = {layer: one.references[0].alias if len(layers) > 1 else None for layer, one in saes.items()}
    features = [
        read_feature(at, "feature_idx").model_copy(update={"sae": aliases[(at / "layer").value]}) for at in applied
    ]
    node.note(DECODER_ROW_NOTE)
    name = (node / "name").text() or feature_names(features)
    more = _shared_fields(node, "combined", "combined_id")
    return build_entry(ProfileDraft(node, name, features, SaeReferences.joined(saes.values()), more))


def _sweep_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    """One profile per strength of the sweep."""
    index, more = (node / "feature_idx").integer(), _shared_fields(node, "sweep", "sweep_id")
    layer = _read_layer(node)
    entries = []
    for at in node / "results":
        strength = (at / "strength").number()
        at.note(DECODER_ROW_NOTE)
        saes = _read_sae(node / "sae_id", known, layer)
        name = f"feature {index} at {strength:g}"
        entries.append(build_entry(ProfileDraft(at, name, [build_feature(at, index, strength)], saes, more)))
    return entries


def _browser_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    """The features selected in the page, one profile each."""
    state = node / "state"
    sae = state / "selectedSAE"
    sae = sae / "id" if isinstance(sae.value, dict) else sae
    prompts = tuple((prompt.text() or "")[:4000] for prompt in state / "prompts") or None
    more = {"example_prompts": prompts, "skip": "none", "provenance": {"source": "mistudio", "format": "browser state"}}
    return [_single_feature_entry(at, _feature_title(at), (sae, known), more) for at in state / "selectedFeatures"]


def matches_labels(node: Node) -> bool:
    return _METADATA in node or is_sae_config(node)


def is_sae_config(node: Node) -> bool:
    return "d_sae" in node and "d_in" in node


def read_label_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    if is_sae_config(node):
        return [_sae_config_entry(node)]
    metadata = node / _METADATA
    sae = metadata / "sae_id"
    id = (metadata / "source" / "sae_id").text() or sae.required_text()
    library_id = known.ids.get(id)
    if library_id:
        sae.note(f"{id} is {library_id} here")
    texts = dict(_read_explanations(node / _EXPLANATIONS / "explanations"))
    max_acts = dict(_read_max_activations(node))
    labels = tuple(
        Label(index=index, label=texts.get(index, ""), max_act=max_acts.get(index))
        for index in sorted({*texts, *max_acts})
    )
    entry = DocumentEntry(node.location, "labels", f"{id}: {len(labels)} labels", labels=labels, sae=library_id)
    return [entry if library_id else replace(entry, unresolved=(unresolved_sae(sae, id),))]


def _read_explanations(explanations: Node) -> Iterator[tuple[int, str]]:
    """(feature, its first description); further descriptions are noted as left out."""
    for one in explanations:
        first = next(iter(one / "explanations"), None)
        if first is not None:
            yield (one / "feature_index").integer(), read_label(first / "description", MAX_LABEL_LENGTH) or ""


def _read_max_activations(node: Node) -> Iterator[tuple[int, float]]:
    for name, at in node.fields():
        if name.startswith(_FEATURES):
            max_act = at / "statistics" / "max_activation"
            if max_act.value is not None and max_act.number() > 0:
                yield (at / "feature_index").integer(), max_act.number()


def _sae_config_entry(node: Node) -> DocumentEntry:
    """A cfg.json describes an SAE without its weights, so nothing can be imported from it."""
    name = (node / "mistudio_training_id").text() or (node / "hook_name").text() or "SAE"
    node.note("it describes an SAE: bring the folder that it lies in with `millm import`")
    node.read_all()
    return DocumentEntry(node.location, "nothing", name[:128])
