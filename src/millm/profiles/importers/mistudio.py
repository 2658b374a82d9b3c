"""What miStudio saves: experiments, combined results, sweeps, and the state of its page in a browser.

An experiment compares features one by one, so each becomes a profile; a combined result is one profile.
miStudio adds strength × the decoder row as it is to every token, the first included.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from millm.profiles.contract import ProfileFeature
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import Draft, Saes, colour, entry, feature, foreign, label
from millm.profiles.importers.values import Entry, Known, Unresolved

FORMAT = "miStudio"
ROWS = (
    "miStudio multiplies the decoder row as it is, and miLLM a row of length 1: where the row's length is not 1,"
    " multiply the strength by it"
)


def recognised(node: Node) -> bool:
    return (
        ("selected_features" in node and "sae_id" in node)
        or "features_applied" in node
        or ("sweep_id" in node and "feature_idx" in node)
        or "selectedFeatures" in node / "state"
    )


def entries(node: Node, known: Known) -> list[Entry]:
    if "features_applied" in node:
        return [_combined(node, known)]
    if "sweep_id" in node:
        return _sweep(node, known)
    if "state" in node:
        return _browser(node, known)
    return list(_experiment(node, known))


def _experiment(node: Node, known: Known) -> Iterator[Entry]:
    name = (node / "name").required()
    chosen = list(node / "selected_features")
    several = [one / "feature_config" for one in node / "results" / "steered_multi"]
    features = [at for at in chosen or several if isinstance(at.value, dict)]
    if not features:
        raise node.refused("has no feature, in selected_features or results.steered_multi")
    for at in features:
        ending = f" · {_called(at)}" if len(features) > 1 else ""
        yield _alone(at, f"{name}{ending}", (node / "sae_id", known), _shared(node, "experiment"))


def _called(at: Node) -> str:
    return str((at / "label").value or f"feature {(at / 'feature_idx').value}")[:60]


def _shared(node: Node, format: str, id: str = "id") -> dict[str, Any]:
    """What all profiles of a document have in common."""
    prompt = (node / "prompt").text() or None
    model = node / "model_id"
    if model.value is not None:
        model.note("a name of miStudio's own: the profile names no model")
    return {
        "description": label(node / "description", 2000),
        "example_prompts": (prompt[:4000],) if prompt else None,
        "tags": tuple(tag.required()[:64] for tag in node / "tags") or None,
        "skip": "none",
        "provenance": _provenance(node, format, id),
    }


def _provenance(node: Node, format: str, id: str) -> dict[str, Any]:
    return {"source": "mistudio", "format": format, "id": (node / id).text(), "created": _moment(node / "created_at")}


def _moment(node: Node) -> datetime | None:
    text = node.text()
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise node.refused("has to be a moment as ISO 8601 writes it") from error


def _alone(at: Node, name: str, sae: tuple[Node, Known], more: dict[str, Any]) -> Entry:
    """A profile of one feature."""
    found = _feature(at)
    at.note(ROWS)
    layer = (at / "layer").whole(10_000) if "layer" in at else None
    return entry(Draft(at, name, [found], _sae(*sae, layer), more))


def _feature(at: Node) -> ProfileFeature:
    return feature(
        at,
        (at / "feature_idx").whole(),
        (at / "strength").number(),
        label=label(at / "label"),
        color=colour(at / "color"),
    )


def _sae(node: Node, known: Known, layer: int | None) -> Saes:
    return foreign(node, node.required(), known, layer)


def _combined(node: Node, known: Known) -> Entry:
    applied = list(node / "features_applied")
    if not applied:
        raise node.refused("applies no features")
    layers = {(at / "layer").whole(10_000) for at in applied}
    sae = node / "sae_id"
    id, named = sae.required(), {}
    found = [foreign(sae, id if len(layers) == 1 else f"{id}@{layer}", known, layer) for layer in sorted(layers)]
    for layer, saes in zip(sorted(layers), found, strict=True):
        named[layer] = saes.references[0].called if len(layers) > 1 else None
    features = [_feature(at).model_copy(update={"sae": named[(at / "layer").value]}) for at in applied]
    node.note(ROWS)
    references = tuple(one for saes in found for one in saes.references)
    asked: tuple[Unresolved, ...] = tuple(one for saes in found for one in saes.unresolved)
    name = (node / "name").text() or " + ".join(one.label or f"feature {one.index}" for one in features)[:128]
    return entry(Draft(node, name, features, Saes(references, asked), _shared(node, "combined", "combined_id")))


def _sweep(node: Node, known: Known) -> list[Entry]:
    """One profile per strength that was tried."""
    index, more = (node / "feature_idx").whole(), _shared(node, "sweep", "sweep_id")
    layer = (node / "layer").whole(10_000) if "layer" in node else None
    tried = []
    for at in node / "results":
        strength = (at / "strength").number()
        at.note(ROWS)
        saes = _sae(node / "sae_id", known, layer)
        name = f"feature {index} at {strength:g}"
        tried.append(entry(Draft(at, name, [feature(at, index, strength)], saes, more)))
    return tried


def _browser(node: Node, known: Known) -> list[Entry]:
    """The features that were chosen when the page was left, one profile each."""
    state = node / "state"
    sae = state / "selectedSAE"
    sae = sae / "id" if isinstance(sae.value, dict) else sae
    prompts = tuple((prompt.text() or "")[:4000] for prompt in state / "prompts") or None
    more = {"example_prompts": prompts, "skip": "none", "provenance": {"source": "mistudio", "format": "browser state"}}
    return [_alone(at, _called(at), (sae, known), more) for at in state / "selectedFeatures"]
