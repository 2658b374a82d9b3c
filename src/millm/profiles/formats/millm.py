"""miLLM's own profile, version 1, and the four older "miLLM profile" shapes: flat, wrapped, ADR, browser."""

from pydantic import ValidationError

from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node
from millm.profiles.formats.import_result import (
    MAX_LAYER,
    ProfileDraft,
    SaeReferences,
    build_entry,
    build_feature,
    first_error,
    read_feature,
    read_label,
    resolve_foreign_sae,
)
from millm.profiles.schema import Profile, ProfileFeature, SaeReference

FORMAT = "millm"


def matches(node: Node) -> bool:
    return (node / "version").value == "1" and "features" in node


def read_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    """Raises InvalidImport for a document that the schema does not allow."""
    del known  # the document references its SAEs by repository
    try:
        profile = Profile.model_validate(node.read_all())
    except ValidationError as error:
        raise node.import_error(f"is no profile: {first_error(error)}") from error
    return [DocumentEntry(node.location, "profile", profile.name, profile)]


PEER_FORMAT = "millm profile of another server"


def matches_peer(node: Node) -> bool:
    if (node / "type").value == "millm_profile":
        return True
    return "name" in node and ("steering" in node or ("sae" in node and "features" in node))


def read_peer_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    at = node / "profile" if (node / "type").value == "millm_profile" else node
    model, saes = _read_model(at), _read_saes(at, known)
    more = {
        "description": read_label(at / "description", 2000),
        "model": model,
        "provenance": {"source": "millm", "format": "profile 1.0", "created": (at / "created_at").text()},
    }
    return [build_entry(ProfileDraft(at, (at / "name").required_text(), _read_features(at), saes, more))]


def _read_model(at: Node) -> dict[str, str | None] | None:
    model = at / "model"
    if isinstance(model.value, dict):
        return {"repo_id": (model / "repo_id").required_text(), "quantization": (model / "quantization").text()}
    name = (at / "model_id").text() or model.text()
    return {"repo_id": name} if name else None


def _read_saes(at: Node, known: KnownSaes) -> SaeReferences:
    sae, sae_id = at / "sae", at / "sae_id"
    if isinstance(sae.value, dict):
        repo = "repo_id" if "repo_id" in sae else "repo"
        return _repository_saes(sae / repo, _read_layer(sae / "layer"), known, sae)
    layer = _read_layer(at / "layer")
    if isinstance(sae.value, str):
        return _repository_saes(sae, layer, known)
    if sae_id.value is None:
        return SaeReferences()
    return resolve_foreign_sae(sae_id, sae_id.required_text(), known, layer)


def _repository_saes(node: Node, layer: int | None, known: KnownSaes, more: Node | None = None) -> SaeReferences:
    """A Hugging Face repository; `path` and `revision` are those of miLLM's own exports."""
    name = node.required_text()
    if name in known.ids or "/" not in name:
        return resolve_foreign_sae(node, name, known, layer)
    path, revision = ((more / "path").text(), (more / "revision").text()) if more else (None, None)
    try:
        return SaeReferences((SaeReference(repo_id=name, path=path, revision=revision, layer=layer),))
    except ValidationError as error:
        raise node.import_error(f"is no SAE: {first_error(error)}") from error


def _read_layer(node: Node) -> int | None:
    return None if node.value is None else node.integer(MAX_LAYER)


def _read_features(at: Node) -> list[ProfileFeature]:
    steering = at / "steering"
    if isinstance(steering.value, dict):
        return [build_feature(value, _parse_index(key, value), value.number()) for key, value in steering.fields()]
    return [read_feature(one, "index") for one in at / "features"]


def _parse_index(key: str, node: Node) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 10):
        raise node.import_error("has to be named by the index of a feature")
    return int(key)
