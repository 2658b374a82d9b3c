"""A body for miStudio's `POST /api/v1/steering/experiments`: what it shows, and what was applied together."""

import hashlib
from typing import Any

from millm.profiles.contract import Profile, ProfileFeature
from millm.profiles.exporters.carried import SaeMeasurements, check_tokens, export_error, only_sae, raw_features

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
