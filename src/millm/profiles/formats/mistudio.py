"""What miStudio saves: experiments, combined results, sweeps, and the state of its page in a browser.

An experiment compares features one by one, so each becomes a profile; a combined result is one profile.
miStudio adds strength × the decoder row as it is to every token, the first included.

A body for miStudio's `POST /api/v1/steering/experiments`: what it shows, and what was applied together.

What miStudio exports for Neuronpedia (a ZIP archive) as labels with their largest activations; an SAE's cfg.json.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from millm.hub.labels import Label
from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node, UnresolvedImportItem
from millm.profiles.formats.export_result import SaeMeasurements, check_tokens, export_error, only_sae, raw_features
from millm.profiles.formats.import_result import (
    MAX_LABEL_LENGTH,
    ProfileDraft,
    SaeReferences,
    build_entry,
    build_feature,
    read_color,
    read_label,
    resolve_foreign_sae,
)
from millm.profiles.schema import Profile, ProfileFeature

EXPORT_FORMAT = "miStudio"
COLOURS = ("teal", "blue", "purple", "amber")
MAX_STRENGTH = 300.0


def export_document(profile: Profile, measurements: SaeMeasurements) -> dict[str, Any]:
    """Raises InvalidProfile."""
    check_tokens(profile, EXPORT_FORMAT, "none")
    sae = only_sae(profile, EXPORT_FORMAT)
    features = raw_features(profile, EXPORT_FORMAT, measurements, max_strength=MAX_STRENGTH)
    if not 1 <= len(features) <= len(COLOURS):
        raise export_error(profile, f"it has {len(features)} features, and {EXPORT_FORMAT} takes 1 to {len(COLOURS)}")
    if sae.alias is None or sae.layer is None:
        raise export_error(
            profile, f"{EXPORT_FORMAT} needs the `name` (or `repo_id`) and the `layer` of its SAE in `saes`"
        )
    chosen = [
        _feature_config(one, sae.layer, colour) for one, colour in zip(features, _assign_colours(features), strict=True)
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
        "features_applied": chosen,
        "steered": [{"text": "", "feature_config": one, "metrics": None} for one in chosen],
        "steered_multi": [],
    }
    return {"name": profile.name, "description": profile.description or None, "comparison_id": id,
            "tags": list(profile.tags), "result": result}  # fmt: skip


def _feature_config(feature: ProfileFeature, layer: int, colour: str) -> dict[str, Any]:
    return {
        "feature_idx": feature.index,
        "layer": layer,
        "strength": feature.strength,
        "label": feature.label,
        "color": colour,
    }


def _assign_colours(features: tuple[ProfileFeature, ...]) -> list[str]:
    """Their own, where miStudio has it and no other feature took it."""
    free = list(COLOURS)
    kept: list[str | None] = []
    for one in features:
        own = one.color if one.color in free else None
        kept.append(own)
        if own:
            free.remove(own)
    return [colour or free.pop(0) for colour in kept]


FORMAT = "miStudio"
DECODER_ROW_NOTE = (
    "miStudio multiplies the decoder row as it is, and miLLM a row of length 1: where the row's length is not 1,"
    " multiply the strength by it"
)


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
    chosen = list(node / "selected_features")
    several = [one / "feature_config" for one in node / "results" / "steered_multi"]
    features = [at for at in chosen or several if isinstance(at.value, dict)]
    if not features:
        raise node.import_error("has no feature, in selected_features or results.steered_multi")
    for at in features:
        ending = f" · {_feature_title(at)}" if len(features) > 1 else ""
        yield _single_feature_entry(at, f"{name}{ending}", (node / "sae_id", known), _shared_fields(node, "experiment"))


def _feature_title(at: Node) -> str:
    return str((at / "label").value or f"feature {(at / 'feature_idx').value}")[:60]


def _shared_fields(node: Node, format: str, id: str = "id") -> dict[str, Any]:
    """What all profiles of a document have in common."""
    prompt = (node / "prompt").text() or None
    model = node / "model_id"
    if model.value is not None:
        model.note("a name of miStudio's own: the profile names no model")
    return {
        "description": read_label(node / "description", 2000),
        "example_prompts": (prompt[:4000],) if prompt else None,
        "tags": tuple(tag.required_text()[:64] for tag in node / "tags") or None,
        "skip": "none",
        "provenance": _provenance(node, format, id),
    }


def _provenance(node: Node, format: str, id: str) -> dict[str, Any]:
    return {
        "source": "mistudio",
        "format": format,
        "id": (node / id).text(),
        "created": _read_datetime(node / "created_at"),
    }


def _read_datetime(node: Node) -> datetime | None:
    text = node.text()
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise node.import_error("has to be a moment as ISO 8601 writes it") from error


def _single_feature_entry(at: Node, name: str, sae: tuple[Node, KnownSaes], more: dict[str, Any]) -> DocumentEntry:
    """A profile of one feature."""
    found = _read_feature(at)
    at.note(DECODER_ROW_NOTE)
    layer = (at / "layer").integer(10_000) if "layer" in at else None
    return build_entry(ProfileDraft(at, name, [found], _read_sae(*sae, layer), more))


def _read_feature(at: Node) -> ProfileFeature:
    return build_feature(
        at,
        (at / "feature_idx").integer(),
        (at / "strength").number(),
        label=read_label(at / "label"),
        color=read_color(at / "color"),
    )


def _read_sae(node: Node, known: KnownSaes, layer: int | None) -> SaeReferences:
    return resolve_foreign_sae(node, node.required_text(), known, layer)


def _combined_entry(node: Node, known: KnownSaes) -> DocumentEntry:
    applied = list(node / "features_applied")
    if not applied:
        raise node.import_error("applies no features")
    layers = {(at / "layer").integer(10_000) for at in applied}
    sae = node / "sae_id"
    id, named = sae.required_text(), {}
    found = [
        resolve_foreign_sae(sae, id if len(layers) == 1 else f"{id}@{layer}", known, layer) for layer in sorted(layers)
    ]
    for layer, saes in zip(sorted(layers), found, strict=True):
        named[layer] = saes.references[0].alias if len(layers) > 1 else None
    features = [_read_feature(at).model_copy(update={"sae": named[(at / "layer").value]}) for at in applied]
    node.note(DECODER_ROW_NOTE)
    references = tuple(one for saes in found for one in saes.references)
    asked: tuple[UnresolvedImportItem, ...] = tuple(one for saes in found for one in saes.unresolved)
    name = (node / "name").text() or " + ".join(one.label or f"feature {one.index}" for one in features)[:128]
    return build_entry(
        ProfileDraft(
            node, name, features, SaeReferences(references, asked), _shared_fields(node, "combined", "combined_id")
        )
    )


def _sweep_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    """One profile per strength that was tried."""
    index, more = (node / "feature_idx").integer(), _shared_fields(node, "sweep", "sweep_id")
    layer = (node / "layer").integer(10_000) if "layer" in node else None
    tried = []
    for at in node / "results":
        strength = (at / "strength").number()
        at.note(DECODER_ROW_NOTE)
        saes = _read_sae(node / "sae_id", known, layer)
        name = f"feature {index} at {strength:g}"
        tried.append(build_entry(ProfileDraft(at, name, [build_feature(at, index, strength)], saes, more)))
    return tried


def _browser_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    """The features that were chosen when the page was left, one profile each."""
    state = node / "state"
    sae = state / "selectedSAE"
    sae = sae / "id" if isinstance(sae.value, dict) else sae
    prompts = tuple((prompt.text() or "")[:4000] for prompt in state / "prompts") or None
    more = {"example_prompts": prompts, "skip": "none", "provenance": {"source": "mistudio", "format": "browser state"}}
    return [_single_feature_entry(at, _feature_title(at), (sae, known), more) for at in state / "selectedFeatures"]


LABELS_FORMAT = "miStudio's export for Neuronpedia"
_FEATURES, _METADATA, _EXPLANATIONS = "features/", "metadata.json", "explanations/explanations.json"


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
    ours = known.ids.get(id)
    asked = (
        ()
        if ours
        else (UnresolvedImportItem(sae.location, "sae", id, f"say once which SAE of ours it is: ?sae={id}=<id>"),)
    )
    if ours:
        sae.note(f"{id} is {ours} here")
    texts = dict(_read_explanations(node / _EXPLANATIONS / "explanations"))
    largest = dict(_read_max_activations(node))
    labels = tuple(
        Label(index=index, label=texts.get(index, ""), max_act=largest.get(index))
        for index in sorted({*texts, *largest})
    )
    return [
        DocumentEntry(node.location, "labels", f"{id}: {len(labels)} labels", labels=labels, sae=ours, unresolved=asked)
    ]


def _read_explanations(explanations: Node) -> Iterator[tuple[int, str]]:
    """The first description of each feature; the others are told as left out."""
    for one in explanations:
        first = next(iter(one / "explanations"), None)
        if first is not None:
            yield (one / "feature_index").integer(), read_label(first / "description", MAX_LABEL_LENGTH) or ""


def _read_max_activations(node: Node) -> Iterator[tuple[int, float]]:
    for name, at in node.fields():
        if name.startswith(_FEATURES):
            largest = at / "statistics" / "max_activation"
            if largest.value is not None and largest.number() > 0:
                yield (at / "feature_index").integer(), largest.number()


def _sae_config_entry(node: Node) -> DocumentEntry:
    """An SAE's own description: the SAE is not in it."""
    name = (node / "mistudio_training_id").text() or (node / "hook_name").text() or "SAE"
    node.note("it describes an SAE: bring the folder that it lies in with `millm import`")
    node.read_all()
    return DocumentEntry(node.location, "nothing", name[:128])
