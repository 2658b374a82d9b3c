"""The built site: links and anchors resolve, every page is in the menu, and no other host is contacted."""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tools.make_docs import DOCS
from tools.make_site import ELSEWHERE, ROOT, build, zensical

LOADS = {
    "img": "src",
    "script": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
"""Tag → the attribute that a browser fetches by itself."""
_IN_STYLE = re.compile(r"url\(\s*['\"]?(?P<url>(?:https?:)?//[^'\")]+)|@import\s+['\"](?P<imported>[^'\"]+)")


class Page(HTMLParser):
    """What of a page refers to something, and what can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADS and LOADS[tag] in given and given.get("rel") not in ("canonical", "alternate"):
            self.loads.append(given[LOADS[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site") / "laid-out")


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_link_and_anchor_leads_somewhere(site: Path, built: dict[Path, Page]) -> None:
    broken = [
        f"{path.relative_to(site)}: {link}"
        for path, page in built.items()
        if path.name != "404.html"
        for link in (*page.links, *page.loads)
        if not _leads_somewhere(site, built, path, link)
    ]
    assert broken == []
    assert sum(len(page.links) for page in built.values()) > 1000


def _leads_somewhere(site: Path, built: dict[Path, Page], path: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return parts.scheme in ("https", "http", "mailto", "data")
    aim = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    aim = aim / "index.html" if aim.is_dir() else aim
    if not aim.is_relative_to(site.resolve()) or not aim.is_file():
        return False
    return not parts.fragment or aim not in built or unquote(parts.fragment) in built[aim].ids | {"__skip"}


def test_no_page_asks_another_host_for_anything(site: Path, built: dict[Path, Page]) -> None:
    foreign = [(path.name, load) for path, page in built.items() for load in page.loads if urlsplit(load).netloc]
    styles = {path: path.read_text("utf-8") for path in site.rglob("*.css")}
    assert styles
    foreign += [(path.name, found[0]) for path, text in styles.items() for found in _IN_STYLE.finditer(text)]
    assert foreign == []


def test_every_page_is_in_the_menu_once() -> None:
    menu = _pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | set(ELSEWHERE.values())
    of_one_decision = {name for name in there if re.match(r"decisions/\d{4}-", name)}
    assert sorted(menu) == sorted(there - of_one_decision)


def _pages_of(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in _pages_of(part)]  # type: ignore[attr-defined]


def test_every_decision_is_listed() -> None:
    listed = (DOCS / "decisions" / "index.md").read_text("utf-8")
    for path in DOCS.glob("decisions/[0-9]*.md"):
        title = path.read_text("utf-8").splitlines()[0].partition(". ")[2]
        assert f"[{title}]({path.name})" in listed


def test_a_link_to_nothing_ends_the_build(tmp_path: Path) -> None:
    """Strict is strict: what is checked above would otherwise rest on a build that says nothing."""
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text("[nothing](nowhere.md)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\n")
    with pytest.raises(subprocess.CalledProcessError):
        zensical(tmp_path)
