"""Export in the shape of miLLM's first design document, which has no fields for token positions."""

from typing import Any

from millm.profiles.formats.export_result import SaeMeasurements, check_tokens, export_error, only_sae, raw_features
from millm.profiles.schema import Profile

FORMAT = "the ADR's shape"


def export_document(profile: Profile, measurements: SaeMeasurements) -> dict[str, Any]:
    """Raises InvalidProfile. `sae.path` and `sae.revision` are extensions that other readers ignore."""
    check_tokens(profile, FORMAT, None)
    sae = only_sae(profile, FORMAT)
    if not sae.repo_id or profile.model is None:
        raise export_error(profile, f"{FORMAT} needs `model`, and the `repo_id` of the SAE in `saes`")
    return {
        "version": "1.0",
        "name": profile.name,
        "description": profile.description or None,
        "model": {"repo_id": profile.model.repo_id, "quantization": profile.model.quantization},
        "sae": {"repo_id": sae.repo_id, "path": sae.path, "revision": sae.revision, "layer": sae.layer},
        "features": [
            {"index": one.index, "strength": one.strength, "label": one.label, "color": one.color}
            for one in raw_features(profile, FORMAT, measurements)
        ],
    }
