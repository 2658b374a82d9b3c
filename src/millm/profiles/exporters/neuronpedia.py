"""A body for Neuronpedia's `POST /api/steer`, or `/api/steer-chat` where the profile says which tokens are skipped."""

from typing import Any

from millm.hub import catalog
from millm.profiles.contract import Profile, ProfileFeature
from millm.profiles.exporters.carried import SaeMeasurements, check_tokens, export_error, raw_features, sae_of_feature

EXPORT_FORMAT = "Neuronpedia"
EXPORT_METHOD = "SIMPLE_ADDITIVE"


def export_document(profile: Profile, measurements: SaeMeasurements) -> dict[str, Any]:
    """Raises InvalidProfile."""
    chat = profile.skip in ("none", "special")
    check_tokens(profile, EXPORT_FORMAT, profile.skip if chat else None)
    features = [_export_feature(profile, one) for one in raw_features(profile, EXPORT_FORMAT, measurements)]
    models = {one["modelId"] for one in features}
    if len(models) != 1:
        raise export_error(profile, f"{EXPORT_FORMAT} takes the features of one model, at least one")
    prompt = profile.example_prompts[0] if profile.example_prompts else ""
    shared = {"modelId": models.pop(), "features": features, "strength_multiplier": 1, "steer_method": EXPORT_METHOD}
    if not chat:
        return {"prompt": prompt, **shared}
    messages = [{"role": "user", "content": prompt}]
    said = {"steer_special_tokens": profile.skip == "none"}
    return {"defaultChatMessages": messages, "steeredChatMessages": messages, **shared, **said}


def _export_feature(profile: Profile, feature: ProfileFeature) -> dict[str, Any]:
    sae = sae_of_feature(profile, feature, EXPORT_FORMAT)
    name = catalog.neuronpedia_id(f"{sae.repo_id}/{sae.path}")
    if name is None or catalog.find_by_neuronpedia_id(name) is None:
        raise export_error(profile, f"{EXPORT_FORMAT} has no page of the SAE {sae.alias!r} that the catalogue knows")
    model, _, source = name.partition("/")
    return {"modelId": model, "layer": source, "index": feature.index, "strength": feature.strength}
