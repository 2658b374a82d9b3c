"""A body for Neuronpedia's `POST /api/steer`, or `/api/steer-chat` where the profile says which tokens are skipped."""

from typing import Any

from millm.hub import registry
from millm.profiles.contract import Profile, ProfileFeature
from millm.profiles.exporters.carried import Measured, check_tokens, raw, refused, sae_of

FORMAT = "Neuronpedia"
METHOD = "SIMPLE_ADDITIVE"


def document(profile: Profile, measured: Measured) -> dict[str, Any]:
    """Raises InvalidProfile."""
    chat = profile.skip in ("none", "special")
    check_tokens(profile, FORMAT, profile.skip if chat else None)
    features = [_feature(profile, one) for one in raw(profile, FORMAT, measured)]
    models = {one["modelId"] for one in features}
    if len(models) != 1:
        raise refused(profile, f"{FORMAT} takes the features of one model, at least one")
    prompt = profile.example_prompts[0] if profile.example_prompts else ""
    shared = {"modelId": models.pop(), "features": features, "strength_multiplier": 1, "steer_method": METHOD}
    if not chat:
        return {"prompt": prompt, **shared}
    messages = [{"role": "user", "content": prompt}]
    said = {"steer_special_tokens": profile.skip == "none"}
    return {"defaultChatMessages": messages, "steeredChatMessages": messages, **shared, **said}


def _feature(profile: Profile, one: ProfileFeature) -> dict[str, Any]:
    sae = sae_of(profile, one, FORMAT)
    name = registry.neuronpedia_id(f"{sae.repo_id}/{sae.path}")
    if name is None or registry.from_neuronpedia(name) is None:
        raise refused(profile, f"{FORMAT} has no page of the SAE {sae.called!r} that the catalogue knows")
    model, _, source = name.partition("/")
    return {"modelId": model, "layer": source, "index": one.index, "strength": one.strength}
