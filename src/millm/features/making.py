"""A profile made of the features that were found: a document that `POST /api/profiles` takes, and nothing saved."""

import math
from collections.abc import Sequence

from millm.features.card import USUAL_NORM_SHARE, label_text
from millm.features.contrasting import Separation
from millm.hub.labels import Labels
from millm.loaded import AttachedSae, LoadedModel
from millm.profiles.resolve import reference_to_attached
from millm.profiles.schema import ModelReference, Profile, ProfileFeature, Provenance

STRENGTH_NOTE = (
    f"Strengths are shares of the residual norm, in proportion to how clearly a feature separates the texts; together"
    f" {USUAL_NORM_SHARE:g} × norm at most, which is a place to begin: try less and more."
)


def profile_from_separations(
    name: str, separations: Sequence[Separation], attached: AttachedSae, model: LoadedModel, labels: Labels
) -> Profile | None:
    """None where nothing was found, or the SAE only reads."""
    facts = attached.facts
    if not separations or not facts.steerable:
        return None
    whole = math.fsum(one.score for one in separations)
    features = tuple(
        ProfileFeature(
            index=one.index,
            strength=_floor_to_thousandth(USUAL_NORM_SHARE * one.score / whole),
            unit="norm",
            sae=facts.sae,
            label=label_text(labels, facts.sae, one.index),
        )
        for one in separations
    )
    return Profile(
        name=name,
        description="Made of the features that separate two sets of texts.",
        model=ModelReference(repo_id=model.name),
        saes=(reference_to_attached(attached),),
        features=features,
        provenance=Provenance(source="millm", format="contrast", note=STRENGTH_NOTE),
    )


def _floor_to_thousandth(strength: float) -> float:
    """To a thousandth, so that the sum never exceeds what it says."""
    return math.floor(strength * 1000) / 1000
