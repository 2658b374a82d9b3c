"""Screenshots of every page of the demo (`make screenshots`); the best are copied to docs/screenshots."""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.fixtures.process import running
from tests.page.browser import journey

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "build" / "screenshots"
SHOWN = ROOT / "docs" / "screenshots"
BEST = ("playground-light-1280", "monitor-light-1280", "request-light-1280", "feature-light-1280")


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    SHOWN.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        running("demo", model="smollm2-135m-instruct", home=Path(home)) as server,
    ):
        journey("screenshots", server.url, pictures=PICTURES)
    for name in BEST:
        shutil.copy(PICTURES / f"{name}.png", SHOWN)
    sys.stdout.write(f"{len(list(PICTURES.glob('*.png')))} pictures in {PICTURES.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
