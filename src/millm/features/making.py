"""A profile made of the features that were found: a document that `POST /api/profiles` takes, and nothing saved."""

import math
from collections.abc import Sequence

from millm.features.card import USUAL_SHARE, label_of
from millm.features.contrasting import Separation
from millm.hub.labels import Labels
from millm.profiles.binding import reference_of
from millm.profiles.contract import ModelReference, Profile, ProfileFeature, Provenance
from millm.state import AttachedSae, LoadedModel

NOTE = (
    f"Strengths are shares of the residual norm, in proportion to how clearly a feature separates the texts; together"
    f" {USUAL_SHARE:g} × norm at most, which is a place to begin: try less and more."
)


def profile_of(
    name: str, found: Sequence[Separation], attached: AttachedSae, model: LoadedModel, labels: Labels
) -> Profile | None:
    """None where nothing was found, or the SAE only reads."""
    facts = attached.facts
    if not found or not facts.steerable:
        return None
    whole = math.fsum(one.score for one in found)
    features = tuple(
        ProfileFeature(
            index=one.index,
            strength=_down(USUAL_SHARE * one.score / whole),
            unit="norm",
            sae=facts.sae,
            label=label_of(labels, facts.sae, one.index),
        )
        for one in found
    )
    return Profile(
        name=name,
        description="Made of the features that separate two sets of texts.",
        model=ModelReference(repo_id=model.name),
        saes=(reference_of(attached),),
        features=features,
        provenance=Provenance(source="millm", format="contrast", note=NOTE),
    )


def _down(strength: float) -> float:
    """To a thousandth, so that the sum never exceeds what it says."""
    return math.floor(strength * 1000) / 1000
