"""Open WebUI in an environment of its own, offline, in front of a real demo server that it reaches by a recorder."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients import environments
from tests.container.composing import composed
from tests.fixtures.process import Server
from tests.openwebui.recorder import Recorder, recording

START_SECONDS = 400
"""Its first start writes a database and compiles what it imports: a minute, three on a busy machine."""

LIMIT = 24
"""Tokens of an answer in the chat, as its user has set it; what runs behind the chat has no limit of its user's."""

Seen = dict[str, Any]


@dataclass(frozen=True)
class OpenWebUI:
    """A running one, and a client that is signed in."""

    url: str
    http: httpx.Client
    asked: Recorder


@pytest.fixture(scope="session")
def recorder(demo_server: Server) -> Iterator[Recorder]:
    with recording(demo_server.url) as door:
        yield door


@pytest.fixture(scope="session")
def open_webui(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenWebUI]:
    command = environments.python("open-webui", torch=True).with_name("open-webui")
    url = f"http://127.0.0.1:{free_port()}"
    folder = tmp_path_factory.mktemp("open-webui")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [command, "serve", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]],
            env=settings(folder, f"{recorder.url}/v1"), cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until_it_answers(url, process, folder / "log")
        with httpx.Client(base_url=url, timeout=120) as http:
            sign_in(http)
            yield OpenWebUI(url, http, recorder)
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def conversation(open_webui: OpenWebUI, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Two messages in the real page, the second as soon as the first is answered, with the profile `yelling`."""
    chromium = shutil.which("chromium")
    assert chromium, "this needs Chromium: apt-get install chromium"
    script = environments.node(Path(__file__).parent / "browser") / "chat.mjs"
    asked = {
        "url": open_webui.url,
        "chromium": chromium,
        "model": "yelling",
        "messages": ["Tell me about the sea.", "And about ships?"],
        "picture": str(tmp_path_factory.getbasetemp() / "open-webui.png"),
    }
    done = subprocess.run(
        ["node", script], input=json.dumps(asked), env=environments.outside(), capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: Seen = json.loads(done.stdout)
    return seen


def settings(folder: Path, base_url: str) -> dict[str, str]:
    """Those of compose.yaml, at another address; and nothing of it asks the internet for anything."""
    return {
        **environments.outside(),
        **composed("compose.yaml")["services"]["open-webui"]["environment"],
        "OPENAI_API_BASE_URL": base_url,
        "DATA_DIR": str(folder),
        "WEBUI_SECRET_KEY": "only a test",
        "RAG_EMBEDDING_ENGINE": "openai",
        "RAG_OPENAI_API_BASE_URL": base_url,
        "RAG_OPENAI_API_KEY": "any",
        "RAG_EMBEDDING_MODEL": "smollm2-135m-instruct",
        "AUDIO_STT_ENGINE": "webapi",
        "OFFLINE_MODE": "True",
        "HF_HUB_OFFLINE": "1",
        "ENABLE_VERSION_UPDATE_CHECK": "False",
        "ANONYMIZED_TELEMETRY": "False",
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "true",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-4000:])


def sign_in(http: httpx.Client) -> None:
    """As its page does where nobody has to sign in; the release notes are read, and answers are kept short."""
    token = http.post("/api/v1/auths/signin", json={"email": "", "password": ""}).raise_for_status().json()["token"]
    http.headers["Authorization"] = f"Bearer {token}"
    chosen = {"version": http.get("/api/version").json()["version"], "params": {"max_tokens": LIMIT}}
    http.post("/api/v1/users/user/settings/update", json={"ui": chosen}).raise_for_status()
