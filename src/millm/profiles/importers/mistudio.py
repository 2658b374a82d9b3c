"""What miStudio saves: experiments, combined results, sweeps, and the state of its page in a browser.

An experiment compares features one by one, so each becomes a profile; a combined result is one profile.
miStudio adds strength × the decoder row as it is to every token, the first included.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from millm.profiles.contract import ProfileFeature
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import (
    ProfileDraft,
    SaeReferences,
    build_entry,
    build_feature,
    read_color,
    read_label,
    resolve_foreign_sae,
)
from millm.profiles.importers.values import DocumentEntry, KnownSaes, UnresolvedImportItem

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
