"""Features as tables and sheets: what the server says of them in, something to print out. Knows no server."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from millm.cli.columns import Fact, plain, sheet
from millm.cli.ids import Id
from millm.cli.quantities import UNKNOWN, number
from millm.cli.visible import visible
from millm.features.card import FeatureCard, PromotedToken
from millm.features.found import FoundLabels
from millm.features.inspecting import FeatureOnText, Inspection, ReadToken
from millm.features.separators import Separator, Separators

LABEL = 48
"""Characters that a label has beside numbers, on a terminal 80 columns wide."""
_TOKEN = 14
_SHOWN = 8
"""Tokens of each direction."""


def labels_table(found: FoundLabels, offset: int = 0) -> RenderableType:
    if not found.features:
        return plain("no label has all of these words; fewer words, or `millm features inspect TEXT`, may find it")
    lines = [
        f"{one.index:>8}  {_number(one.max_act):>8}  {_cut(one.label or UNKNOWN, LABEL)}" for one in found.features
    ]
    last = offset + len(found.features)
    more = f"; --offset {last} shows more" if last < found.total else ""
    return Group(
        Text(f"{'FEATURE':>8}  {'MAX':>8}  LABEL", style="bold"),
        *map(plain, lines),
        plain(f"{offset + 1} to {last} of {number(found.total)}{more}; `millm features show FEATURE` tells more"),
    )


def card_sheet(card: FeatureCard) -> RenderableType:
    facts: list[Fact] = [
        ("label", card.label or "none yet: `millm features label` writes one"),
        ("source", card.source),
        ("of", Id(card.sae)),
        ("hook point", f"{card.hook_point} (layer {card.layer})"),
        ("largest", None if card.max_act is None else f"{card.max_act:.4g}, the unit `max_act`"),
        ("fires at", None if card.density is None else f"{100 * card.density:.2g} % of tokens"),
        ("promotes", _tokens(card.promoted)),
        ("suppresses", _tokens(card.suppressed)),
        ("to begin with", f"strength {card.strengths.half_norm:.3g}: half the residual norm"),
        ("Neuronpedia", card.neuronpedia),
    ]
    neighbours = [
        plain(f"{one.index:>8}  {one.cosine:>6.2f}  {_cut(one.label or UNKNOWN, LABEL)}") for one in card.neighbours
    ]
    heading = Text(f"{'NEAREST':>8}  {'COSINE':>6}  LABEL", style="bold")
    return Group(plain(f"feature {card.index}"), sheet(facts), *([heading, *neighbours] if neighbours else []))


def inspection_table(inspection: Inspection) -> RenderableType:
    return Group(
        Text(f"{'TOKEN':<{_TOKEN}}  FEATURES", style="bold"),
        *(plain(_token_line(token)) for token in inspection.tokens),
        plain(""),
        Text(f"{'FEATURE':>8}  {'MAX':>7}  {'MEAN':>7}  {'TOKENS':>6}  LABEL", style="bold"),
        *(plain(_feature_line(one)) for one in inspection.features),
        plain(f"{number(inspection.fired)} features fire on {number(inspection.counted)} tokens"),
    )


def separators_table(found: Separators) -> RenderableType:
    parts: list[RenderableType] = []
    for title, side in (("MORE IN A", found.more_in_a), ("MORE IN B", found.more_in_b)):
        parts += [
            Text(f"{title:>9}  {'SCORE':>6}  {'AUC':>4}  {'IN A':>7}  {'IN B':>7}  LABEL", style="bold"),
            *_separators(side),
        ]
    return Group(*parts, plain("--json holds a profile made of the first; `millm features show FEATURE` tells more"))


def _separators(side: Sequence[Separator]) -> list[RenderableType]:
    if not side:
        return [plain("     none")]
    return [
        plain(
            f"{one.index:>9}  {one.score:>6.2f}  {one.auc:>4.2f}  {_number(one.mean_a):>7}  {_number(one.mean_b):>7}"
            f"  {_cut(one.label or UNKNOWN, 34)}"
        )
        for one in side
    ]


def _token_line(token: ReadToken) -> str:
    name = _cut(token.token.replace("\n", "⏎").replace("\t", "⇥") or UNKNOWN, _TOKEN)
    fires = "   ".join(f"{one.index} {_number(one.activation)}" for one in token.top[:4])
    return f"{name:<{_TOKEN}}  {fires if token.counts else f'({fires})'}"


def _feature_line(one: FeatureOnText) -> str:
    label = _cut(one.label or UNKNOWN, 40)
    return f"{one.index:>8}  {_number(one.max):>7}  {_number(one.mean):>7}  {one.count:>6}  {label}"


def _tokens(tokens: Sequence[PromotedToken]) -> str:
    return "  ".join(repr(visible(one.token)) for one in tokens[:_SHOWN]) or UNKNOWN


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0e}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
