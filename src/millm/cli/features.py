"""`millm features`: find features of an attached SAE by words, number or texts, and write down what they mean.

Features as tables and sheets: what the server says of them in, something to print out. Knows no server.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from millm.cli.http_client import connect
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.terminal import (
    UNKNOWN,
    Fact,
    IdText,
    details_table,
    format_count,
    plain_text,
    print_json,
    replace_control_chars,
    stdout_console,
)
from millm.errors import CannotStart
from millm.features.card import FeatureCard, PromotedToken
from millm.features.search import FeatureOnText, FoundLabel, FoundLabels, Inspection, ReadToken, Separator, Separators

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


group = typer.Typer(
    help="""Find what an SAE's features mean, by words or by texts in which they fire.

    Example:

        millm features search yelling

    Asks the running server about the SAE that is attached.
    """,
    no_args_is_help=True,
    rich_markup_mode="rich",
)
FeatureIndexArgument = Annotated[
    int, typer.Argument(metavar="INDEX", min=0, help="The feature's number.", show_default=False)
]
SaeOption = Annotated[str | None, typer.Option(help="Which SAE, if several are attached.", show_default=False)]
TextsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="A text, or @FILE: one on each line. As often as you like.", show_default=False),
]


@group.command()
def search(
    text: Annotated[str, typer.Argument(help="Words of the label, or a number; none: all.", show_default=False)] = "",
    sae: SaeOption = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many to show.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="How many to leave out before.")] = 0,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Search the labels: every word has to be in one; those that are just that come first.

    Example:

        millm features search "capital letters"
    """
    query = _query_string(q=text, sae=sae, limit=limit, offset=offset)
    found = connect(url, api_key).request("GET", f"/api/features/search{query}", FoundLabels)
    print_json(found) if as_json else stdout_console().print(labels_table(found, offset))


@group.command()
def show(
    index: FeatureIndexArgument, sae: SaeOption = None, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None
) -> None:
    """Show what is known of a feature: its label, the tokens that it makes likelier, its neighbours.

    Example:

        millm features show 135
    """
    card = connect(url, api_key).request("GET", f"/api/features/{index}{_query_string(sae=sae)}", FeatureCard)
    print_json(card) if as_json else stdout_console().print(feature_details(card))


@group.command()
def inspect(
    text: Annotated[str, typer.Argument(help="What the model reads.", show_default=False)],
    sae: SaeOption = None,
    top_k: Annotated[int, typer.Option("--top-k", min=0, max=100, help="Features of each token.")] = 3,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="Features of the whole text.")] = 10,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Show which features fire on a text, at each token and over all of it.

    Example:

        millm features inspect "STOP SHOUTING at me"
    """
    body = {"text": text, "sae": sae, "top_k": top_k, "limit": limit}
    inspection = connect(url, api_key).request("POST", "/api/features/inspect", Inspection, body)
    print_json(inspection) if as_json else stdout_console().print(inspection_table(inspection))


@group.command()
def contrast(
    a: TextsOption = None,
    b: TextsOption = None,
    sae: SaeOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Features of each direction.")] = 10,
    make: Annotated[int, typer.Option(min=1, max=32, help="Features of the profile.")] = 3,
    name: Annotated[str, typer.Option(help="Of the profile, in --json.")] = "contrast",
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Find the features that separate two sets of texts, at most 64 a side.

    Example:

        millm features contrast --a @loud.txt --b @calm.txt

    With --json, also a profile made of those that fire more on A; nothing is saved.
    """
    body = {
        "a": _read_texts(a, "--a"), "b": _read_texts(b, "--b"), "sae": sae, "limit": limit, "make": make, "name": name,
    }  # fmt: skip
    found = connect(url, api_key).request("POST", "/api/features/contrast", Separators, body)
    print_json(found) if as_json else stdout_console().print(separators_table(found))


@group.command()
def label(
    index: FeatureIndexArgument,
    text: Annotated[str, typer.Argument(help="What it means; an empty one takes back what was written before.")],
    sae: SaeOption = None,
    max_act: Annotated[float | None, typer.Option("--max-act", help="Its largest activation, if you know it.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Write down what a feature means. The SAE's own file stays as it is.

    Example:

        millm features label 135 "text in ALL CAPS"
    """
    remote, place = connect(url, api_key), f"/api/features/{index}/label{_query_string(sae=sae)}"
    written = {"label": text, "max_act": max_act}
    told = remote.request("PUT", place, FoundLabel, written) if text else remote.request("DELETE", place, FoundLabel)
    print_json(told) if as_json else stdout_console().print(labels_table(FoundLabels(total=1, features=(told,))))


def _query_string(**values: object) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _read_texts(given: list[str] | None, option: str) -> list[str]:
    """Raises CannotStart."""
    texts = [text for one in given or () for text in (_read_lines(one[1:], option) if one.startswith("@") else [one])]
    if not texts:
        raise CannotStart(f"{option} needs a text: {option} TEXT, or {option} @FILE with one on each line")
    return texts


def _read_lines(path: str, option: str) -> list[str]:
    try:
        return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"{option} @{path} cannot be read as text; name a file with one text on each line") from error
