"""`millm features`: find features of an attached SAE by words, number or texts, and write down what they mean."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from millm.cli.feature_tables import feature_details, inspection_table, labels_table, separators_table
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.remote import connect
from millm.errors import CannotStart
from millm.features.card import FeatureCard
from millm.features.search import FoundLabel, FoundLabels, Inspection, Separators

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
