"""Record what commands show: a real terminal 80 columns wide, a real server, a hub with tiny models, one after another.

python -m tests.cli.make_recordings        # writes docs/terminal/*.txt, which docs/cli.md shows; takes half a minute
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.shelf import Shelf, shelf
from tests.fixtures.fakehub import serving
from tests.fixtures.repos import GEMMA, SCOPE_SAE, write_repositories

FOLDER = Path(__file__).parents[2] / "docs" / "terminal"
_SLOW = 60_000
"""Bytes a second, so that there is something to see on the way."""


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in recorded().items():
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")


def recorded() -> dict[str, str]:
    """Name → what was on the screen."""
    with _laboratory() as place:
        return {
            "pull": "\n\n".join([_pulled(place), _seen(place, "pull", SCOPE_SAE)]) + "\n",
            "list": "\n\n".join([_seen(place, "list"), _seen(place, "list", "--saes")]) + "\n",
            "estimate": _seen(place, "estimate", GEMMA, "--context", "256", "--slots", "8", "--sae", SCOPE_SAE) + "\n",
            "load": _seen(place, "load", GEMMA, "--slots", "8") + "\n",
            "attach": _seen(place, "attach", SCOPE_SAE) + "\n",
            "ps": _seen(place, "ps") + "\n",
        }


def without_figures(text: str) -> str:
    """What does not depend on the machine, the day and the libraries: neither numbers nor bars, nor how far apart."""
    timeless = re.sub(r"(\d+ (h|min|s) )+left", "TIME left", re.sub("[0-9a-f]{40}", "COMMIT", text))
    named = re.sub(r"\d[\d.,]*( [kMGT]?B\b)?", "#", timeless)
    return re.sub(r"\s+", " ", re.sub("[━╸╺]+|█+", "", named))


@contextmanager
def _laboratory() -> Iterator[Shelf]:
    with tempfile.TemporaryDirectory() as folder, serving(write_repositories(Path(folder) / "hub")) as hub:
        place = shelf(hub, Path(folder))
        with place.served():
            yield place


def _pulled(place: Shelf) -> str:
    """On the way and at the end."""
    place.hub.fail(".safetensors", "slow", times=100, speed=_SLOW)
    with place.on_screen("pull", GEMMA) as terminal:
        way = terminal.watch(lambda text: " left  " in text)
        place.hub.forget()
        end = terminal.to_the_end()
    return f"$ millm pull {GEMMA}\n{way}\n\n{_last_lines(end, 2)}"


def _last_lines(text: str, count: int) -> str:
    return "\n".join(text.splitlines()[-count:])


def _seen(place: Shelf, *arguments: str) -> str:
    with place.on_screen(*arguments) as terminal:
        text = terminal.to_the_end()
    return f"$ millm {' '.join(arguments)}\n{text}"


if __name__ == "__main__":
    main()
