"""Neuronpedia's documents: a steering request, a list of features, a vector, and the URL of a feature's page.

Strengths multiply decoder rows of length 1, as miLLM's do. The export is a body for Neuronpedia's `POST /api/steer`, or
`/api/steer-chat` where the profile says which tokens are skipped.
"""

import re
from dataclasses import replace
from typing import Any

from millm.hub import catalog
from millm.hub.entries import hugging_face_id
from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node, ResidualVector
from millm.profiles.formats.export_result import (
    SaeMeasurements,
    check_tokens,
    export_error,
    raw_features,
    sae_of_feature,
)
from millm.profiles.formats.import_result import (
    MAX_LABEL_LENGTH,
    ProfileDraft,
    SaeReferences,
    build_entry,
    build_feature,
    feature_names,
    read_label,
    reference_from_id,
    resolve_foreign_sae,
)
from millm.profiles.schema import Profile, ProfileFeature

FORMAT = "Neuronpedia"
STEER_METHOD = "SIMPLE_ADDITIVE"
PAGE_URL = re.compile(r"https?://(?:www\.)?neuronpedia\.org/([\w.-]+)/([\w.-]+)/(\d{1,10})(?:[?#]\S*)?")
_HOOK_TYPES = {"resid-pre": "hook_resid_pre", "resid-post": "hook_resid_post"}
_HOOK_NAME = re.compile(r"blocks\.(\d{1,5})\.(?:hook_)?resid[-_](pre|post)")


def export_document(profile: Profile, measurements: SaeMeasurements) -> dict[str, Any]:
    """Raises InvalidProfile."""
    chat = profile.skip in ("none", "special")
    check_tokens(profile, FORMAT, profile.skip if chat else None)
    features = [_export_feature(profile, one) for one in raw_features(profile, FORMAT, measurements)]
    models = {one["modelId"] for one in features}
    if len(models) != 1:
        raise export_error(profile, f"{FORMAT} takes the features of one model, at least one")
    prompt = profile.example_prompts[0] if profile.example_prompts else ""
    shared = {"modelId": models.pop(), "features": features, "strength_multiplier": 1, "steer_method": STEER_METHOD}
    if not chat:
        return {"prompt": prompt, **shared}
    messages = [{"role": "user", "content": prompt}]
    special = {"steer_special_tokens": profile.skip == "none"}
    return {"defaultChatMessages": messages, "steeredChatMessages": messages, **shared, **special}


def _export_feature(profile: Profile, feature: ProfileFeature) -> dict[str, Any]:
    sae = sae_of_feature(profile, feature, FORMAT)
    name = catalog.neuronpedia_id(f"{sae.repo_id}/{sae.path}")
    if name is None or catalog.find_by_neuronpedia_id(name) is None:
        raise export_error(profile, f"{FORMAT} has no page of the SAE {sae.alias!r} that the catalogue knows")
    model, _, source = name.partition("/")
    return {"modelId": model, "layer": source, "index": feature.index, "strength": feature.strength}


def matches(node: Node) -> bool:
    first = next(iter(node / "features"), node)
    has_features = "modelId" in first and "index" in first
    return has_features or _is_vector(_vector_node(node)) or "neuronpedia" in node


def read_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    if "neuronpedia" in node:
        return [_page_entry(node / "neuronpedia", known)]
    if _is_vector(_vector_node(node)):
        return [_vector_entry(_vector_node(node))]
    if any("strength" in one for one in node / "features"):
        return [_steering_entry(node, known)]
    return [_list_entry(node, known)]


def _page_entry(at: Node, known: KnownSaes) -> DocumentEntry:
    """The feature of a page URL, with strength 0."""
    match = PAGE_URL.fullmatch(at.required_text().strip())
    if not match:
        raise at.import_error("is no address of a feature: https://www.neuronpedia.org/<model>/<layer-source>/<index>")
    model, source, index = match.groups()
    at.note("a page says no strength: it is 0, and the profile changes nothing until it is set")
    saes = _read_saes(at, f"{model}/{source}", known)
    features = [build_feature(at, int(index), 0.0)]
    return build_entry(ProfileDraft(at, f"{source} {index}", features, saes, _source_fields(at, "page", model)))


def _steering_entry(node: Node, known: KnownSaes) -> DocumentEntry:
    method, factor = (node / "steer_method").text() or STEER_METHOD, 1.0
    if method != STEER_METHOD:
        raise (node / "steer_method").import_error(f"is {method[:40]!r}; only {STEER_METHOD} can be done here")
    if "steer_method" in node:
        (node / "steer_method").note("what mode `add` does")
    if "strength_multiplier" in node:
        factor = (node / "strength_multiplier").number()
        (node / "strength_multiplier").note("multiplied into the strengths")
    saes, features = _read_features(node, known, factor)
    more = {
        **_source_fields(node, "steer", (node / "modelId").text() or _first_model_id(node)),
        **_prompt_fields(node),
        "skip": _read_skip(node),
    }
    return build_entry(ProfileDraft(node, feature_names(features), features, saes, more))


def _prompt_fields(node: Node) -> dict[str, Any]:
    prompt = (node / "prompt").text() or (node / "testText").text()
    return {"example_prompts": (prompt[:4000],)} if prompt else {}


def _read_skip(node: Node) -> str | None:
    special = node / "steer_special_tokens"
    if special.value is None:
        return None
    special.note("told as `skip`")
    return "none" if special.read_all() is True else "special"


def _list_entry(node: Node, known: KnownSaes) -> DocumentEntry:
    (node / "features").note("a list says no strengths: they are 0, and the profile changes nothing until they are set")
    saes, features = _read_features(node, known, 1.0)
    more = {
        **_source_fields(node, "list", _first_model_id(node)),
        "description": read_label(node / "description", 2000),
        **_prompt_fields(node),
    }
    return build_entry(ProfileDraft(node, (node / "name").text() or "list", features, saes, more))


def _first_model_id(node: Node) -> str | None:
    return next((str((one / "modelId").value) for one in node / "features"), None)


def _source_fields(node: Node, format: str, model: str | None) -> dict[str, Any]:
    """Provenance, and the model by its Hugging Face id where the catalogue knows that."""
    id = (node / "id").text() if isinstance(node.value, dict) else None
    repo_id = (hugging_face_id(model) or model) if model else None
    return {"provenance": {"source": "neuronpedia", "format": format, "id": id}, "model": repo_id}


def _read_features(node: Node, known: KnownSaes, factor: float) -> tuple[SaeReferences, list[ProfileFeature]]:
    at = list(node / "features")
    ids = [f"{(one / 'modelId').required_text()}/{(one / 'layer').required_text()}" for one in at]
    saes = {id: _read_saes(one / "layer", id, known) for id, one in zip(ids, at, strict=True)}
    features = [
        build_feature(
            one,
            (one / "index").integer(),
            factor * (one / "strength").number() if "strength" in one else 0.0,
            label=read_label(one / "description", MAX_LABEL_LENGTH),
            sae=saes[id].references[0].alias if len(saes) > 1 else None,
        )
        for id, one in zip(ids, at, strict=True)
    ]
    return SaeReferences.joined(saes.values()), features


def _read_saes(at: Node, name: str, known: KnownSaes) -> SaeReferences:
    """The SAE by the catalogue, unless `known` maps the id."""
    public = catalog.find_by_neuronpedia_id(name)
    if public is None or name in known.ids:
        return resolve_foreign_sae(at, name, known)
    at.note(f"{name} is {public.id}")
    return SaeReferences((reference_from_id(public.id, public.layer),))


def _vector_node(node: Node) -> Node:
    return node / "vector" if isinstance((node / "vector").value, dict) else node


def _is_vector(node: Node) -> bool:
    return isinstance((node / "values").value, list) or ("layerNumber" in node and "vector" in node)


def _vector_entry(node: Node) -> DocumentEntry:
    """A profile without features; its vector is decomposed when a matching SAE is attached."""
    values = node / "values" if "values" in node else node / "vector"
    strength = node / ("defaultSteerStrength" if "values" in node else "vectorDefaultSteerStrength")
    factor = strength.number() if strength.value is not None else 1.0
    strength.note("multiplied into the vector")
    layer, hook = _read_hook_point(node)
    numbers = tuple(factor * one.number() for one in values)
    values.note("told as features of an attached SAE")
    name = (node / "label").text() or (node / "vectorLabel").text() or "vector"
    fields = _source_fields(node, "vector", (node / "modelId").text())
    entry = build_entry(ProfileDraft(node, name, [], fields=fields))
    return replace(entry, vectors=(ResidualVector(values.location, hook, layer, numbers),))


def _read_hook_point(node: Node) -> tuple[int, str]:
    if "hookName" in node:
        at = node / "hookName"
        match = _HOOK_NAME.fullmatch(at.required_text())
        if not match:
            raise at.import_error("is no hook point that is known: blocks.<layer>.resid-pre or resid-post")
        at.note("the hook point, as SAELens names it")
        return int(match[1]), f"blocks.{match[1]}.hook_resid_{match[2]}"
    at, layer = node / "hookType", (node / "layerNumber").integer(10_000)
    kind = at.required_text()
    if kind not in _HOOK_TYPES:
        raise at.import_error(f"has to be one of {', '.join(_HOOK_TYPES)}")
    at.note(f"the hook point, with the layer: blocks.{layer}.{_HOOK_TYPES[kind]}")
    return layer, f"blocks.{layer}.{_HOOK_TYPES[kind]}"
