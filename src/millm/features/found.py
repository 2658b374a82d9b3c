"""Labels of several SAEs that fit a search, as one page."""

import msgspec

from millm.hub.labels import Label, Labels


class FoundLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that was searched for."""

    sae: str
    index: int
    label: str
    max_act: float | None
    density: float | None
    source: str


class FoundLabels(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the features whose labels fit."""

    total: int
    features: tuple[FoundLabel, ...]


class PutLabels(msgspec.Struct, frozen=True, kw_only=True):
    """What an import brought."""

    sae: str
    labels: int


def search_labels_page(labels: Labels, saes: list[str], text: str, limit: int, offset: int) -> FoundLabels:
    """The best first, whichever SAE they are of."""
    found = [(one.rank, one.length, sae, one.label) for sae in saes for one in labels.search_index(sae).search(text)]
    if len(saes) > 1:
        found.sort(key=lambda one: (*one[:3], one[3].index))
    page = found[offset : offset + limit]
    return FoundLabels(total=len(found), features=tuple(label_match(sae, label) for _, _, sae, label in page))


def label_match(sae: str, label: Label) -> FoundLabel:
    return FoundLabel(
        sae=sae,
        index=label.index,
        label=label.label,
        max_act=label.max_act,
        density=label.density,
        source=label.source,
    )
