"""The page on an empty server with a hub of tiny models: the story, a restart, and large numbers of entries."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.cli.library_home import LibraryHome, library_home
from tests.cli.terminal import ready_url, started
from tests.fixtures.fakehub import serving
from tests.fixtures.process import running
from tests.fixtures.repos import GEMMA, SCOPE_SAE
from tests.fixtures.tiny import write_sae
from tests.page.browser import journey

pytestmark = pytest.mark.page

FEATURE = 1234
PROFILES, LABELS = 10_000, 16_384


def test_from_an_empty_server_to_a_profile_in_a_chat_client(repositories: Path, tmp_path: Path) -> None:
    with serving(repositories) as hub:
        there = library_home(hub, tmp_path)
        url = f"http://127.0.0.1:{there.port}"

        def chat_client() -> str:
            client = OpenAI(base_url=f"{url}/v1", api_key="none")
            messages: Any = [{"role": "user", "content": "One two three"}]
            return client.chat.completions.create(model=f"{GEMMA}:yelling-demo", messages=messages, max_tokens=12).id

        names = {"model": GEMMA, "sae": SCOPE_SAE, "feature": FEATURE}
        with there.served():
            journey("story", url, {"names": lambda: names, "openai client": chat_client})


@contextmanager
def restarting(there: LibraryHome) -> Iterator[dict[str, Any]]:
    """A server, with functions to kill it and start it again on the same port."""
    servers: list[Any] = []

    def start() -> None:
        context = started("serve", home=there.home, **there.variables)
        process = context.__enter__()
        servers.append((context, process))
        ready_url(process)

    def kill() -> None:
        context, process = servers.pop()
        process.kill()
        context.__exit__(None, None, None)

    start()
    try:
        yield {"kill the server": kill, "start the server": start}
    finally:
        kill()


def test_the_page_comes_back_after_a_restart(repositories: Path, tmp_path: Path) -> None:
    with serving(repositories) as hub:
        there = library_home(hub, tmp_path)
        with restarting(there) as deeds:
            journey("empty", f"http://127.0.0.1:{there.port}")
            journey("restart", f"http://127.0.0.1:{there.port}", deeds)


def test_very_many_profiles_and_labels(tiny_model: Path, tmp_path: Path) -> None:
    sae, home = write_sae(tmp_path / "wide", features=LABELS), tmp_path / "home"
    write_profiles(home / "profiles")
    with running("serve", str(tiny_model), "--sae", str(sae), model=tiny_model.name, home=home) as server:
        with httpx.Client(base_url=server.url, timeout=120) as http:
            lines = (json.dumps({"index": index, "label": f"label {index}"}) for index in range(LABELS))
            http.post("/api/features/labels", content="\n".join(lines).encode()).raise_for_status()
        journey("many", server.url)


def write_profiles(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(PROFILES):
        name, features = f"made {number:05}", [{"index": number, "strength": 1.0}]
        (folder / f"{name}.json").write_text(json.dumps({"version": "1", "name": name, "features": features}))
