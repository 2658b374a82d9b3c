"""`millm features`: find features of an attached SAE by words, number or texts, and label them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer
from rich.console import Group, RenderableType

from millm.cli.http_client import connect
from millm.cli.options import ApiKey, AsJson, Url, given_options
from millm.cli.terminal import (
    UNKNOWN,
    IdText,
    format_count,
    format_page,
    plain_text,
    print_result,
    replace_control_chars,
    sheet,
    table,
    truncate,
)
from millm.errors import CannotStart
from millm.features.card import FeatureCard, PromotedToken
from millm.features.search import FoundLabel, FoundLabels, Inspection, ReadToken, Separator, Separators

LABEL_WIDTH = 48
"""Characters of a label beside numbers, on a terminal 80 columns wide."""
_TOKEN_WIDTH = 14
_PROMOTED_SHOWN = 8
"""Tokens of each direction."""


def labels_table(labels: FoundLabels, offset: int = 0) -> RenderableType:
    if not labels.features:
        return plain_text("no label has all of these words; fewer words, or `millm features inspect TEXT`, may find it")
    rows = [(str(one.index), _format_value(one.max_act), _label_text(one.label)) for one in labels.features]
    page = format_page(offset, len(labels.features), labels.total)
    return Group(
        table((">FEATURE", ">MAX", "LABEL"), rows, flexible=-1),
        plain_text(f"{page}; `millm features show FEATURE` shows details"),
    )


def feature_details(card: FeatureCard) -> RenderableType:
    neighbours = [(str(one.index), f"{one.cosine:.2f}", _label_text(one.label)) for one in card.neighbours]
    return sheet(
        f"feature {card.index}",
        [
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
        ],
        *([table((">NEAREST", ">COSINE", "LABEL"), neighbours, flexible=-1)] if neighbours else []),
    )


def inspection_table(inspection: Inspection) -> RenderableType:
    rows = [
        (str(one.index), _format_value(one.max), _format_value(one.mean), str(one.count), _label_text(one.label, 40))
        for one in inspection.features
    ]
    return Group(
        table(("TOKEN", "FEATURES"), map(_token_row, inspection.tokens), flexible=-1),
        "",
        table((">FEATURE", ">MAX", ">MEAN", ">TOKENS", "LABEL"), rows, flexible=-1),
        plain_text(f"{format_count(inspection.fired)} features fire on {format_count(inspection.counted)} tokens"),
    )


def separators_table(separators: Separators) -> RenderableType:
    return Group(
        _side_table("MORE IN A", separators.more_in_a),
        _side_table("MORE IN B", separators.more_in_b),
        plain_text("--json holds a profile of the first; `millm features show FEATURE` shows details"),
    )


def _side_table(title: str, side: Sequence[Separator]) -> RenderableType:
    rows = [
        (
            str(one.index), f"{one.score:.2f}", f"{one.auc:.2f}", _format_value(one.mean_a), _format_value(one.mean_b),
            _label_text(one.label, 34),
        )
        for one in side
    ]  # fmt: skip
    headings = (f">{title}", ">SCORE", ">AUC", ">IN A", ">IN B", "LABEL")
    return table(headings, rows or [("none", *[""] * 5)], flexible=-1)


def _token_row(token: ReadToken) -> tuple[str, str]:
    name = truncate(token.token.replace("\n", "⏎").replace("\t", "⇥") or UNKNOWN, _TOKEN_WIDTH)
    firings = "   ".join(f"{one.index} {_format_value(one.activation)}" for one in token.top[:4])
    return name, firings if token.counts else f"({firings})"


def _label_text(label: str | None, width: int = LABEL_WIDTH) -> str:
    return truncate(label or UNKNOWN, width)


def _promoted_tokens_text(tokens: Sequence[PromotedToken]) -> str:
    return "  ".join(repr(replace_control_chars(one.token)) for one in tokens[:_PROMOTED_SHOWN]) or "no token"


def _format_value(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0e}"


group = typer.Typer(
    help="""Find what an SAE's features mean, by words or by texts in which they fire.

    Example:

        millm features search yelling

    Searches the SAEs that are attached on the running server.
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
    offset: Annotated[int, typer.Option(min=0, help="How many to skip.")] = 0,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Search the labels for all of the words; exact matches come first.

    Example:

        millm features search "capital letters"
    """
    query = _query_string(q=text, sae=sae, limit=limit, offset=offset)
    labels = connect(url, api_key).request("GET", f"/api/features/search{query}", FoundLabels)
    print_result(labels, lambda labels: labels_table(labels, offset), as_json=as_json)


@group.command()
def show(
    index: FeatureIndexArgument, sae: SaeOption = None, as_json: AsJson = False, url: Url = None, api_key: ApiKey = None
) -> None:
    """Show what is known of a feature: its label, the tokens that it makes likelier, its neighbours.

    Example:

        millm features show 135
    """
    card = connect(url, api_key).request("GET", f"/api/features/{index}{_query_string(sae=sae)}", FeatureCard)
    print_result(card, feature_details, as_json=as_json)


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
    print_result(inspection, inspection_table, as_json=as_json)


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

    With --json, also a profile of those that fire more on A; nothing is saved.
    """
    body = {
        "a": _read_texts(a, "--a"), "b": _read_texts(b, "--b"), "sae": sae, "limit": limit, "make": make, "name": name,
    }  # fmt: skip
    separators = connect(url, api_key).request("POST", "/api/features/contrast", Separators, body)
    print_result(separators, separators_table, as_json=as_json)


@group.command()
def label(
    index: FeatureIndexArgument,
    text: Annotated[str, typer.Argument(help="What it means; an empty text removes your label.")],
    sae: SaeOption = None,
    max_act: Annotated[float | None, typer.Option("--max-act", help="Its largest activation, if you know it.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Label a feature. The SAE's own file stays as it is.

    Example:

        millm features label 135 "text in ALL CAPS"
    """
    path, body = f"/api/features/{index}/label{_query_string(sae=sae)}", {"label": text, "max_act": max_act}
    label = connect(url, api_key).request("PUT" if text else "DELETE", path, FoundLabel, body if text else None)
    print_result(label, lambda label: labels_table(FoundLabels(total=1, features=(label,))), as_json=as_json)


def _query_string(**values: object) -> str:
    query = given_options(**values)
    return f"?{urlencode(query)}" if query else ""


def _read_texts(values: list[str] | None, option: str) -> list[str]:
    """Each value, or the lines of the file that `@FILE` names. Raises CannotStart if there is no text."""
    texts = [
        text
        for value in values or ()
        for text in (_read_lines(value[1:], option) if value.startswith("@") else [value])
    ]
    if not texts:
        raise CannotStart(f"{option} needs a text: {option} TEXT, or {option} @FILE with one on each line")
    return texts


def _read_lines(path: str, option: str) -> list[str]:
    try:
        return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"{option} @{path} cannot be read as text; name a file with one text on each line") from error
