"""Neuronpedia's documents: a steering request, a list of features, a vector, and the address of a feature's page.

Its strengths are in units of decoder rows of length 1, as ours.
"""

import re
from typing import Any

from millm.hub import registry
from millm.hub.names import hugging_face_id
from millm.profiles.contract import ProfileFeature, SaeReference
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import LABEL, Draft, Saes, entry, feature, foreign, label, ours
from millm.profiles.importers.values import Entry, Known, Vector

FORMAT = "Neuronpedia"
METHOD = "SIMPLE_ADDITIVE"
ADDRESS = re.compile(r"https?://(?:www\.)?neuronpedia\.org/([\w.-]+)/([\w.-]+)/(\d{1,10})(?:[?#]\S*)?")
_HOOKS = {"resid-pre": "hook_resid_pre", "resid-post": "hook_resid_post"}
_NAMED_HOOK = re.compile(r"blocks\.(\d{1,5})\.(?:hook_)?resid[-_](pre|post)")


def recognised(node: Node) -> bool:
    first = next(iter(node / "features"), node)
    named = "modelId" in first and "index" in first
    return named or _is_vector(_vector_of(node)) or "neuronpedia" in node


def entries(node: Node, known: Known) -> list[Entry]:
    if "neuronpedia" in node:
        return [_address(node / "neuronpedia", known)]
    if _is_vector(_vector_of(node)):
        return [_vector(_vector_of(node))]
    if any("strength" in one for one in node / "features"):
        return [_steering(node, known)]
    return [_list(node, known)]


def _address(at: Node, known: Known) -> Entry:
    """The address of a feature's page, as text: the feature, with no strength yet."""
    found = ADDRESS.fullmatch(at.required().strip())
    if not found:
        raise at.refused("is no address of a feature: https://www.neuronpedia.org/<model>/<layer-source>/<index>")
    model, source, index = found.groups()
    at.note("a page says no strength: it is 0, and the profile changes nothing until it is set")
    saes = _saes(at, f"{model}/{source}", known)
    return entry(Draft(at, f"{source} {index}", [feature(at, int(index), 0.0)], saes, _from(at, "page", model)))


def _steering(node: Node, known: Known) -> Entry:
    method, factor = (node / "steer_method").text() or METHOD, 1.0
    if method != METHOD:
        raise (node / "steer_method").refused(f"is {method[:40]!r}; only {METHOD} can be done here")
    if "steer_method" in node:
        (node / "steer_method").note("what mode `add` does")
    if "strength_multiplier" in node:
        factor = (node / "strength_multiplier").number()
        (node / "strength_multiplier").note("multiplied into the strengths")
    saes, features = _features(node, known, factor)
    more = {**_from(node, "steer", (node / "modelId").text() or _model(node)), **_prompts(node), "skip": _skip(node)}
    name = " + ".join(one.label or f"feature {one.index}" for one in features)[:128]
    return entry(Draft(node, name, features, saes, more))


def _prompts(node: Node) -> dict[str, Any]:
    prompt = (node / "prompt").text() or (node / "testText").text()
    return {"example_prompts": (prompt[:4000],)} if prompt else {}


def _skip(node: Node) -> str | None:
    special = node / "steer_special_tokens"
    if special.value is None:
        return None
    special.note("told as `skip`")
    return "none" if special.all() is True else "special"


def _list(node: Node, known: Known) -> Entry:
    (node / "features").note("a list says no strengths: they are 0, and the profile changes nothing until they are set")
    saes, features = _features(node, known, 1.0)
    more = {**_from(node, "list", _model(node)), "description": label(node / "description", 2000), **_prompts(node)}
    return entry(Draft(node, (node / "name").text() or "list", features, saes, more))


def _model(node: Node) -> str | None:
    return next((str((one / "modelId").value) for one in node / "features"), None)


def _from(node: Node, format: str, model: str | None) -> dict[str, Any]:
    id = (node / "id").text() if isinstance(node.value, dict) else None
    return {"provenance": {"source": "neuronpedia", "format": format, "id": id}, "model": _public(model)}


def _public(model: str | None) -> str | None:
    """The Hugging Face id of what Neuronpedia calls a model, or what it is called there."""
    return (hugging_face_id(model) or model) if model else None


def _features(node: Node, known: Known, factor: float) -> tuple[Saes, list[ProfileFeature]]:
    at = list(node / "features")
    places = [f"{(one / 'modelId').required()}/{(one / 'layer').required()}" for one in at]
    found = {place: _saes(one / "layer", place, known) for place, one in zip(places, at, strict=True)}
    names = {place: saes.references[0].called for place, saes in found.items()}
    features = [
        feature(
            one,
            (one / "index").whole(),
            factor * (one / "strength").number() if "strength" in one else 0.0,
            label=label(one / "description", LABEL),
            sae=names[place] if len(found) > 1 else None,
        )
        for place, one in zip(places, at, strict=True)
    ]
    references = tuple(one for saes in found.values() for one in saes.references)
    return Saes(references, tuple(one for saes in found.values() for one in saes.unresolved)), features


def _saes(at: Node, name: str, known: Known) -> Saes:
    """What the catalogue says it is, unless somebody has said otherwise."""
    public = registry.from_neuronpedia(name)
    if public is None or name in known.saes:
        return foreign(at, name, known)
    at.note(f"{name} is {public.id}")
    found: SaeReference = ours(public.id, layer=public.layer)
    return Saes((found,))


def _vector_of(node: Node) -> Node:
    return node / "vector" if isinstance((node / "vector").value, dict) else node


def _is_vector(node: Node) -> bool:
    return isinstance((node / "values").value, list) or ("layerNumber" in node and "vector" in node)


def _vector(node: Node) -> Entry:
    """To be told as features of an SAE; what to call it and how strong it is by default, it says itself."""
    values = node / "values" if "values" in node else node / "vector"
    strength = node / ("defaultSteerStrength" if "values" in node else "vectorDefaultSteerStrength")
    factor = strength.number() if strength.value is not None else 1.0
    strength.note("multiplied into the vector")
    layer, hook = _hook(node)
    numbers = tuple(factor * one.number() for one in values)
    values.note("told as features of an attached SAE")
    name = (node / "label").text() or (node / "vectorLabel").text() or "vector"
    made = entry(Draft(node, name, [], more={**_from(node, "vector", (node / "modelId").text())}))
    return Entry(made.path, "profile", made.name, made.profile, vectors=(Vector(values.place, hook, layer, numbers),))


def _hook(node: Node) -> tuple[int, str]:
    if "hookName" in node:
        at = node / "hookName"
        found = _NAMED_HOOK.fullmatch(at.required())
        if not found:
            raise at.refused("is no hook point that is known: blocks.<layer>.resid-pre or resid-post")
        at.note("the hook point, as SAELens names it")
        return int(found[1]), f"blocks.{found[1]}.hook_resid_{found[2]}"
    at, layer = node / "hookType", (node / "layerNumber").whole(10_000)
    kind = at.required()
    if kind not in _HOOKS:
        raise at.refused(f"has to be one of {', '.join(_HOOKS)}")
    at.note(f"the hook point, with the layer: blocks.{layer}.{_HOOKS[kind]}")
    return layer, f"blocks.{layer}.{_HOOKS[kind]}"
