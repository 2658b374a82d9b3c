"""Record the output of commands on a terminal 80 columns wide, with a real server and a hub of tiny models.

python -m tests.cli.make_recordings        # writes docs/terminal/*.txt, shown in docs/cli.md; half a minute
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.library_home import LibraryHome, library_home
from tests.fixtures.fakehub import serving
from tests.fixtures.repos import GEMMA, SCOPE_SAE, write_repositories

FOLDER = Path(__file__).parents[2] / "docs" / "terminal"
_SLOW = 60_000
"""Bytes per second, slow enough for a progress bar."""


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in record().items():
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")


def record() -> dict[str, str]:
    """Name → screen."""
    with _library() as home:
        return {
            "pull": "\n\n".join([_record_pull(home), _record(home, "pull", SCOPE_SAE)]) + "\n",
            "list": "\n\n".join([_record(home, "list"), _record(home, "list", "--saes")]) + "\n",
            "estimate": _record(home, "estimate", GEMMA, "--context", "256", "--slots", "8", "--sae", SCOPE_SAE) + "\n",
            "load": _record(home, "load", GEMMA, "--slots", "8") + "\n",
            "attach": _record(home, "attach", SCOPE_SAE) + "\n",
            "ps": _record(home, "ps") + "\n",
        }


def without_figures(text: str) -> str:
    """Without numbers, bars and spacing, which depend on the machine, the date and the libraries."""
    timeless = re.sub(r"(\d+ (h|min|s) )+left", "TIME left", re.sub("[0-9a-f]{40}", "COMMIT", text))
    named = re.sub(r"\d[\d.,]*( [kMGT]?B\b)?", "#", timeless)
    return re.sub(r"\s+", " ", re.sub("[━╸╺]+|█+", "", named))


@contextmanager
def _library() -> Iterator[LibraryHome]:
    with tempfile.TemporaryDirectory() as folder, serving(write_repositories(Path(folder) / "hub")) as hub:
        home = library_home(hub, Path(folder))
        with home.served():
            yield home


def _record_pull(home: LibraryHome) -> str:
    """The screen during the download and at its end."""
    home.hub.fail(".safetensors", "slow", times=100, speed=_SLOW)
    with home.on_screen("pull", GEMMA) as terminal:
        during = terminal.watch(lambda text: " left  " in text)
        home.hub.forget()
        end = terminal.to_the_end()
    return f"$ millm pull {GEMMA}\n{during}\n\n{_last_lines(end, 2)}"


def _last_lines(text: str, count: int) -> str:
    return "\n".join(text.splitlines()[-count:])


def _record(home: LibraryHome, *arguments: str) -> str:
    with home.on_screen(*arguments) as terminal:
        text = terminal.to_the_end()
    return f"$ millm {' '.join(arguments)}\n{text}"


if __name__ == "__main__":
    main()
