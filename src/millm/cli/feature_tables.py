"""Features as tables and sheets: what the server says of them in, something to print out. Knows no server."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from millm.cli.columns import Fact, details_table, plain_text
from millm.cli.ids import IdText
from millm.cli.quantities import UNKNOWN, format_count
from millm.cli.visible import replace_control_chars
from millm.features.card import FeatureCard, PromotedToken
from millm.features.search import FeatureOnText, FoundLabels, Inspection, ReadToken, Separator, Separators

LABEL_WIDTH = 48
"""Characters that a label has beside numbers, on a terminal 80 columns wide."""
_TOKEN_WIDTH = 14
_PROMOTED_SHOWN = 8
"""Tokens of each direction."""


def labels_table(labels: FoundLabels, offset: int = 0) -> RenderableType:
    if not labels.features:
        return plain_text("no label has all of these words; fewer words, or `millm features inspect TEXT`, may find it")
    lines = [
        f"{one.index:>8}  {_format_value(one.max_act):>8}  {_truncate(one.label or UNKNOWN, LABEL_WIDTH)}"
        for one in labels.features
    ]
    last = offset + len(labels.features)
    more = f"; --offset {last} shows more" if last < labels.total else ""
    return Group(
        Text(f"{'FEATURE':>8}  {'MAX':>8}  LABEL", style="bold"),
        *map(plain_text, lines),
        plain_text(
            f"{offset + 1} to {last} of {format_count(labels.total)}{more}; `millm features show FEATURE` tells more"
        ),
    )


def feature_details(card: FeatureCard) -> RenderableType:
    facts: list[Fact] = [
        ("label", card.label or "none yet: `millm features label` writes one"),
        ("source", card.source),
        ("of", IdText(card.sae)),
        ("hook point", f"{card.hook_point} (layer {card.layer})"),
        ("largest", None if card.max_act is None else f"{card.max_act:.4g}, the unit `max_act`"),
        ("fires at", None if card.density is None else f"{100 * card.density:.2g} % of tokens"),
        ("promotes", _promoted_tokens_text(card.promoted)),
        ("suppresses", _promoted_tokens_text(card.suppressed)),
        ("to begin with", f"strength {card.strengths.half_norm:.3g}: half the residual norm"),
        ("Neuronpedia", card.neuronpedia),
    ]
    neighbours = [
        plain_text(f"{one.index:>8}  {one.cosine:>6.2f}  {_truncate(one.label or UNKNOWN, LABEL_WIDTH)}")
        for one in card.neighbours
    ]
    heading = Text(f"{'NEAREST':>8}  {'COSINE':>6}  LABEL", style="bold")
    return Group(
        plain_text(f"feature {card.index}"), details_table(facts), *([heading, *neighbours] if neighbours else [])
    )


def inspection_table(inspection: Inspection) -> RenderableType:
    return Group(
        Text(f"{'TOKEN':<{_TOKEN_WIDTH}}  FEATURES", style="bold"),
        *(plain_text(_token_line(token)) for token in inspection.tokens),
        plain_text(""),
        Text(f"{'FEATURE':>8}  {'MAX':>7}  {'MEAN':>7}  {'TOKENS':>6}  LABEL", style="bold"),
        *(plain_text(_feature_line(one)) for one in inspection.features),
        plain_text(f"{format_count(inspection.fired)} features fire on {format_count(inspection.counted)} tokens"),
    )


def separators_table(separators: Separators) -> RenderableType:
    parts: list[RenderableType] = []
    for title, side in (("MORE IN A", separators.more_in_a), ("MORE IN B", separators.more_in_b)):
        parts += [
            Text(f"{title:>9}  {'SCORE':>6}  {'AUC':>4}  {'IN A':>7}  {'IN B':>7}  LABEL", style="bold"),
            *_separator_lines(side),
        ]
    return Group(
        *parts, plain_text("--json holds a profile made of the first; `millm features show FEATURE` tells more")
    )


def _separator_lines(side: Sequence[Separator]) -> list[RenderableType]:
    if not side:
        return [plain_text("     none")]
    return [
        plain_text(
            f"{one.index:>9}  {one.score:>6.2f}  {one.auc:>4.2f}  {_format_value(one.mean_a):>7}  {_format_value(one.mean_b):>7}"
            f"  {_truncate(one.label or UNKNOWN, 34)}"
        )
        for one in side
    ]


def _token_line(token: ReadToken) -> str:
    name = _truncate(token.token.replace("\n", "⏎").replace("\t", "⇥") or UNKNOWN, _TOKEN_WIDTH)
    fires = "   ".join(f"{one.index} {_format_value(one.activation)}" for one in token.top[:4])
    return f"{name:<{_TOKEN_WIDTH}}  {fires if token.counts else f'({fires})'}"


def _feature_line(one: FeatureOnText) -> str:
    label = _truncate(one.label or UNKNOWN, 40)
    return f"{one.index:>8}  {_format_value(one.max):>7}  {_format_value(one.mean):>7}  {one.count:>6}  {label}"


def _promoted_tokens_text(tokens: Sequence[PromotedToken]) -> str:
    return "  ".join(repr(replace_control_chars(one.token)) for one in tokens[:_PROMOTED_SHOWN]) or UNKNOWN


def _format_value(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0e}"


def _truncate(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
