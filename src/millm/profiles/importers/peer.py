"""The four shapes that were written as "miLLM profile" elsewhere: flat, wrapped, by the ADR, and of the browser."""

from pydantic import ValidationError

from millm.profiles.contract import ProfileFeature, SaeReference
from millm.profiles.importers.document import Node
from millm.profiles.importers.made import Draft, Saes, colour, complaint, entry, feature, foreign, label
from millm.profiles.importers.values import Entry, Known

FORMAT = "millm profile of another server"


def recognised(node: Node) -> bool:
    if (node / "type").value == "millm_profile":
        return True
    return "name" in node and ("steering" in node or ("sae" in node and "features" in node))


def entries(node: Node, known: Known) -> list[Entry]:
    """One profile."""
    at = node / "profile" if (node / "type").value == "millm_profile" else node
    model = _model(at)
    saes = _saes(at, known)
    more = {
        "description": label(at / "description", 2000),
        "model": model,
        "provenance": {"source": "millm", "format": "profile 1.0", "created": _created(at)},
    }
    return [entry(Draft(at, (at / "name").required(), _features(at), saes, more))]


def _created(at: Node) -> str | None:
    return (at / "created_at").text()


def _model(at: Node) -> dict[str, str | None] | None:
    model = at / "model"
    if isinstance(model.value, dict):
        return {"repo_id": (model / "repo_id").required(), "quantization": (model / "quantization").text()}
    name = (at / "model_id").text() or model.text()
    return {"repo_id": name} if name else None


def _saes(at: Node, known: Known) -> Saes:
    sae, sae_id = at / "sae", at / "sae_id"
    if isinstance(sae.value, dict):
        repo = "repo_id" if "repo_id" in sae else "repo"
        return _public(sae / repo, _layer(sae / "layer"), known, sae)
    layer = _layer(at / "layer")
    if isinstance(sae.value, str):
        return _public(sae, layer, known)
    return foreign(sae_id, sae_id.required(), known, layer) if sae_id.value is not None else Saes()


def _public(node: Node, layer: int | None, known: Known, more: Node | None = None) -> Saes:
    """A Hugging Face repository; which of its SAEs, `path` and `revision` of our own exports say."""
    name = node.required()
    if name in known.saes or "/" not in name:
        return foreign(node, name, known, layer)
    path, revision = ((more / "path").text(), (more / "revision").text()) if more else (None, None)
    try:
        return Saes((SaeReference(repo_id=name, path=path, revision=revision, layer=layer),))
    except ValidationError as error:
        raise node.refused(f"is no SAE: {complaint(error)}") from error


def _layer(node: Node) -> int | None:
    return None if node.value is None else node.whole(10_000)


def _features(at: Node) -> list[ProfileFeature]:
    steering = at / "steering"
    if isinstance(steering.value, dict):
        return [feature(value, _index(key, value), value.number()) for key, value in steering.fields()]
    return [
        feature(
            one,
            (one / "index").whole(),
            (one / "strength").number(),
            label=label(one / "label"),
            color=colour(one / "color"),
        )
        for one in at / "features"
    ]


def _index(key: str, node: Node) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 10):
        raise node.refused("has to be named by the index of a feature")
    return int(key)
