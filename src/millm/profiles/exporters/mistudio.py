"""A body for miStudio's `POST /api/v1/steering/experiments`: what it shows, and what was applied together."""

import hashlib
from typing import Any

from millm.profiles.contract import Profile, ProfileFeature
from millm.profiles.exporters.carried import Measured, check_tokens, only_sae, raw, refused

FORMAT = "miStudio"
COLOURS = ("teal", "blue", "purple", "amber")
MOST_STRENGTH = 300.0


def document(profile: Profile, measured: Measured) -> dict[str, Any]:
    """Raises InvalidProfile."""
    check_tokens(profile, FORMAT, "none")
    sae = only_sae(profile, FORMAT)
    features = raw(profile, FORMAT, measured, most=MOST_STRENGTH)
    if not 1 <= len(features) <= len(COLOURS):
        raise refused(profile, f"it has {len(features)} features, and {FORMAT} takes 1 to {len(COLOURS)}")
    if sae.called is None or sae.layer is None:
        raise refused(profile, f"{FORMAT} needs the `name` (or `repo_id`) and the `layer` of its SAE in `saes`")
    chosen = [_chosen(one, sae.layer, colour) for one, colour in zip(features, _colours(features), strict=True)]
    prompt = profile.example_prompts[0] if profile.example_prompts else ""
    id = "millm-" + hashlib.sha256(profile.model_dump_json().encode()).hexdigest()[:32]
    result = {
        "name": profile.name,
        "description": profile.description or None,
        "combined_id": id,
        "comparison_id": id,
        "sae_id": sae.called,
        "model_id": profile.model.repo_id if profile.model else None,
        "prompt": prompt,
        "features_applied": chosen,
        "steered": [{"text": "", "feature_config": one, "metrics": None} for one in chosen],
        "steered_multi": [],
    }
    return {"name": profile.name, "description": profile.description or None, "comparison_id": id,
            "tags": list(profile.tags), "result": result}  # fmt: skip


def _chosen(feature: ProfileFeature, layer: int, colour: str) -> dict[str, Any]:
    return {
        "feature_idx": feature.index,
        "layer": layer,
        "strength": feature.strength,
        "label": feature.label,
        "color": colour,
    }


def _colours(features: tuple[ProfileFeature, ...]) -> list[str]:
    """Their own, where miStudio has it and no other feature took it."""
    free = list(COLOURS)
    kept: list[str | None] = []
    for one in features:
        own = one.color if one.color in free else None
        kept.append(own)
        if own:
            free.remove(own)
    return [colour or free.pop(0) for colour in kept]
