"""A contrast as it is told: with labels, and with a profile made of what was found."""

from typing import Any

import msgspec

from millm.features.card import label_text
from millm.features.contrasting import Contrast, Separation
from millm.features.making import profile_from_separations
from millm.loaded import AttachedSae
from millm.state import State


class Separator(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that separates the texts."""

    index: int
    label: str | None
    score: float
    """Standardised difference of the means: the larger, the clearer."""
    auc: float
    """How often a text of A has more of it than one of B, 0 to 1."""
    mean_a: float
    mean_b: float
    max: float
    """At any token."""


class Separators(msgspec.Struct, frozen=True, kw_only=True):
    """The features that separate two sets of texts, the clearest first."""

    sae: str
    more_in_a: tuple[Separator, ...]
    more_in_b: tuple[Separator, ...]
    profile: dict[str, Any] | None
    """Of the first of `more_in_a`, as `POST /api/profiles` takes it; null where there are none to steer."""


def build_separators(
    state: State, attached: AttachedSae, result: Contrast, *, limit: int, profile_features: int, name: str
) -> Separators:
    """`limit`: each way. `make`: features of the profile, which is called `name`."""
    profile = profile_from_separations(
        name, result.more_in_a[:profile_features], attached, state.model_or_raise(), state.labels
    )
    return Separators(
        sae=attached.facts.sae,
        more_in_a=_labelled_separators(state, attached, result.more_in_a[:limit]),
        more_in_b=_labelled_separators(state, attached, result.more_in_b[:limit]),
        profile=profile.model_dump(mode="json", exclude_none=True) if profile else None,
    )


def _labelled_separators(
    state: State, attached: AttachedSae, separations: tuple[Separation, ...]
) -> tuple[Separator, ...]:
    sae = attached.facts.sae
    return tuple(
        Separator(
            index=one.index,
            label=label_text(state.labels, sae, one.index),
            score=one.score,
            auc=one.auc,
            mean_a=one.mean_a,
            mean_b=one.mean_b,
            max=one.largest,
        )
        for one in separations
    )
