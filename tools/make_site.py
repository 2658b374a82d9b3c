"""Build the documentation site out of docs/ and the few pages that live elsewhere: `make site`.

Pages of the repository link to source files; the site holds pages alone. So they are copied to a build folder first:
links between pages are rewritten, other links become plain text. A broken link stays, and Zensical's strict mode fails
on it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Page → its path in the site."""
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)")


def main() -> None:
    print(f"built {build(ROOT / 'build' / 'site')}/index.html")


def build(target: Path) -> Path:
    """Build in an empty `target`; → the folder of the HTML. Raises CalledProcessError with the faults."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(ROOT / "mkdocs.yml", target)
    for source, place in sources().items():
        laid_out = target / "docs" / place
        laid_out.parent.mkdir(parents=True, exist_ok=True)
        if laid_out.suffix == ".md":
            laid_out.write_text(relinked((ROOT / source).read_text("utf-8"), source, place), encoding="utf-8")
        else:
            shutil.copy(ROOT / source, laid_out)
    zensical(target)
    return target / "site"


def zensical(folder: Path) -> None:
    """Raises CalledProcessError where a link leads to no page."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", "mkdocs.yml"]
    subprocess.run(command, cwd=folder, env={**os.environ, "NO_COLOR": "1"}, check=True)


def sources() -> dict[str, str]:
    """Path in the repository → path in the site."""
    inside = [path for path in sorted((ROOT / "docs").rglob("*")) if path.is_file()]
    return {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix() for path in inside
    } | ELSEWHERE


def relinked(text: str, source: str, place: str) -> str:
    """The text of `source` with links that are right at `place`."""
    places = sources()

    def link(found: re.Match[str]) -> str:
        target = found["target"]
        aim = os.path.normpath(os.path.join(os.path.dirname(source), target))
        if "://" in target or target.startswith("mailto:") or not (ROOT / aim).exists():
            return found[0]
        if aim not in places:
            return found["text"]
        return f"[{found['text']}]({os.path.relpath(places[aim], os.path.dirname(place))}{found['anchor'] or ''})"

    return _LINK.sub(link, text)


if __name__ == "__main__":
    main()
