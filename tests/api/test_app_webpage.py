"""The UI's files and addresses; no other file is served."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from millm.api.app import WebPage, install_error_handlers

INDEX = '<!doctype html><meta name="csp-nonce" content=""><div id="root"></div>'
SECRET = "nobody reads this"


def client_of(web: Path) -> TestClient:
    app = FastAPI()
    install_error_handlers(app, 2**20)
    app.include_router(WebPage(web).router)
    return TestClient(app, follow_redirects=False)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[TestClient]:
    web = tmp_path / "web"
    (web / "assets").mkdir(parents=True)
    (web / "index.html").write_text(INDEX)
    (web / "assets" / "index-abc.js").write_text("0")
    (tmp_path / "secret.txt").write_text(SECRET)
    with client_of(web) as client:
        yield client


@pytest.mark.parametrize("address", ["/ui/", "/ui/models", "/ui/features?sae=a/b&index=3", "/ui/a/b/c"])
def test_every_page_address_serves_the_index(page: TestClient, address: str) -> None:
    answer = page.get(address)
    assert answer.status_code == 200
    assert 'id="root"' in answer.text
    assert answer.headers["cache-control"] == "no-cache"


def test_nonce_matches_policy_and_changes(page: TestClient) -> None:
    def nonce(answer: httpx.Response) -> str:
        found = re.search(r'csp-nonce" content="([^"]+)"', answer.text)
        assert found
        assert f"style-src 'self' 'nonce-{found[1]}'" in answer.headers["content-security-policy"]
        return found[1]

    assert nonce(page.get("/ui/")) != nonce(page.get("/ui/"))


def test_assets_are_cached_forever(page: TestClient) -> None:
    answer = page.get("/ui/assets/index-abc.js")
    assert (answer.status_code, answer.text) == (200, "0")
    assert "javascript" in answer.headers["content-type"]
    assert "immutable" in answer.headers["cache-control"]
    assert page.head("/ui/assets/index-abc.js").headers["content-length"] == "1"


@pytest.mark.parametrize(
    "address",
    [
        "/ui/assets/other.js",
        "/ui/../secret.txt",
        "/ui/%2e%2e/secret.txt",
        "/ui/..%2fsecret.txt",
        f"/ui/assets/{'a' * 5000}.js",
        "/ui//etc/hosts.txt",
        "/ui/assets/%00.js",
    ],
)
def test_other_files_are_not_served(page: TestClient, address: str) -> None:
    answer = page.get(address)
    assert answer.status_code == 404
    assert SECRET not in answer.text


def test_missing_slash_redirects(page: TestClient) -> None:
    answer = page.get("/ui")
    assert (answer.status_code, answer.headers["location"]) == (307, "ui/")


def test_missing_build_is_explained(tmp_path: Path) -> None:
    with client_of(tmp_path / "web") as client:
        answer = client.get("/ui/")
    assert answer.status_code == 503
    assert "pip install -e ." in answer.text
