"""The commands of the library on a running server: state, downloads and changes."""

import json
from collections.abc import Iterator
from math import inf
from typing import Any

import httpx
import pytest

from tests.cli.library_home import LibraryHome, library_home
from tests.cli.terminal import CompletedCommand, assert_refused
from tests.fixtures.fakehub import serving
from tests.fixtures.repos import GEMMA, LLAMA, write_repositories
from tests.fixtures.screen import CTRL_C


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryHome]:
    folder = tmp_path_factory.mktemp("shelf")
    with serving(write_repositories(folder / "hub")) as hub:
        home = library_home(hub, folder)
        with home.served():
            yield home


def succeeded(ran: CompletedCommand) -> CompletedCommand:
    assert (ran.code, ran.leftover_processes) == (0, []), ran
    return ran


def test_server_and_disk_give_the_same_json(server: LibraryHome) -> None:
    """The same library over HTTP and, with no server at MILLM_PORT, directly."""
    succeeded(server.millm("pull", LLAMA))
    for command in (["list"], ["list", "--saes"], ["show", LLAMA]):
        over_http = json.loads(succeeded(server.millm(*command, "--json")).out)
        directly = json.loads(succeeded(server.millm(*command, "--json", MILLM_PORT="1")).out)
        assert without_free(over_http) == without_free(directly)


def without_free(value: Any) -> Any:
    """Without free memory, which other processes change."""
    if isinstance(value, list):
        return [without_free(one) for one in value]
    if isinstance(value, dict):
        return {name: without_free(field) for name, field in value.items() if name != "free"}
    return value


def test_ctrl_c_leaves_the_download_to_the_server(server: LibraryHome) -> None:
    server.hub.fail(".safetensors", "slow", times=inf, speed=20_000)
    with server.on_screen("pull", GEMMA) as terminal:
        terminal.watch(lambda text: "/s  " in text)
        terminal.type(CTRL_C)
        text = terminal.to_the_end()
    assert terminal.process.returncode == 130
    assert "the server goes on downloading" in text
    assert "cancelled" in succeeded(server.millm("pull", GEMMA, "--cancel")).err
    assert_refused(server.millm("pull", GEMMA, "--cancel"), "not being downloaded")
    server.hub.forget()


def test_ctrl_c_cancels_a_load(server: LibraryHome) -> None:
    succeeded(server.millm("pull", LLAMA))
    status, text = next(ended for ended in (interrupted_load(server) for _ in range(60)) if ended[0] != 0)
    assert status == 130, text
    assert "`millm ps` shows what is loaded" in text
    is_loaded = json.loads(succeeded(server.millm("ps", "--json")).out)["model"] is not None
    assert is_loaded != ("is given up" in text), text


def interrupted_load(server: LibraryHome) -> tuple[int, str]:
    """Exit code and screen; 0 if the tiny model was loaded before the key arrived."""
    with server.on_screen("load", LLAMA) as terminal:
        while terminal.process.poll() is None and not is_changing(server):
            pass  # the screen would show it too late
        terminal.type(CTRL_C)
        text = terminal.to_the_end().replace("\n", "")  # line breaks of the terminal
    return terminal.process.returncode, text


def is_changing(server: LibraryHome) -> bool:
    return httpx.get(f"http://127.0.0.1:{server.port}/api/status").json()["changing"] is not None


def test_invalid_changes_are_rejected_and_change_nothing(server: LibraryHome) -> None:
    before = json.loads(succeeded(server.millm("ps", "--json")).out)
    assert_refused(server.millm("load", "nobody/nothing"), "nobody/nothing")
    assert_refused(server.millm("attach", "nobody/nothing/x"))
    assert_refused(server.millm("detach", "nobody/nothing/x"))
    after = json.loads(succeeded(server.millm("ps", "--json")).out)
    assert (after["status"], after["model"], after["saes"]) == (before["status"], before["model"], before["saes"])


def test_registry_search_is_the_same_over_the_server(server: LibraryHome) -> None:
    search = ("saes", "--model", "google/gemma-2-2b", "--layer", "20", "--width", "16k", "--json")
    offline = succeeded(server.millm(*search)).out
    assert json.loads(offline)["total"] == 16
    assert succeeded(server.millm(*search, "--url", f"http://127.0.0.1:{server.port}")).out == offline
