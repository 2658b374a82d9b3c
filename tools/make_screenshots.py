"""Pictures of every page of the demo, as `make screenshots` takes them; the best go into docs/screenshots."""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.fixtures.process import running
from tests.page.browser import journey

ROOT = Path(__file__).parents[1]
MADE = ROOT / "build" / "screenshots"
SHOWN = ROOT / "docs" / "screenshots"
BEST = ("playground-light-1280", "monitor-light-1280", "request-light-1280", "feature-light-1280")


def main() -> None:
    MADE.mkdir(parents=True, exist_ok=True)
    SHOWN.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        running("demo", model="smollm2-135m-instruct", home=Path(home)) as server,
    ):
        journey("screenshots", server.url, pictures=MADE)
    for name in BEST:
        shutil.copy(MADE / f"{name}.png", SHOWN)
    sys.stdout.write(f"{len(list(MADE.glob('*.png')))} pictures in {MADE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
