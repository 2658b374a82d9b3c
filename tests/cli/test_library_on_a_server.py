"""The commands of the library over a running server: what is loaded and attached, and what downloads there."""

import json
from collections.abc import Iterator
from math import inf
from typing import Any

import httpx
import pytest

from tests.cli.shelf import Shelf, shelf
from tests.cli.terminal import Ran, assert_refused
from tests.fixtures.fakehub import serving
from tests.fixtures.repos import GEMMA, LLAMA, write_repositories
from tests.fixtures.screen import CTRL_C


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    folder = tmp_path_factory.mktemp("shelf")
    with serving(write_repositories(folder / "hub")) as hub:
        place = shelf(hub, folder)
        with place.served():
            yield place


def done(ran: Ran) -> Ran:
    assert (ran.code, ran.left) == (0, []), ran
    return ran


def test_the_server_and_the_disk_tell_the_same(there: Shelf) -> None:
    """Two ways to the same library: over HTTP, and, where nobody answers, directly."""
    done(there.millm("pull", LLAMA))
    for command in (["list"], ["list", "--saes"], ["show", LLAMA]):
        over_http = json.loads(done(there.millm(*command, "--json")).out)
        directly = json.loads(done(there.millm(*command, "--json", MILLM_PORT="1")).out)
        assert without_free(over_http) == without_free(directly)


def without_free(told: Any) -> Any:
    """What another process needs at that moment makes a difference to."""
    if isinstance(told, list):
        return [without_free(one) for one in told]
    if isinstance(told, dict):
        return {name: without_free(value) for name, value in told.items() if name != "free"}
    return told


def test_ctrl_c_leaves_the_download_to_the_server(there: Shelf) -> None:
    there.hub.fail(".safetensors", "slow", times=inf, speed=20_000)
    with there.on_screen("pull", GEMMA) as terminal:
        terminal.watch(lambda text: "/s  " in text)
        terminal.type(CTRL_C)
        text = terminal.to_the_end()
    assert terminal.process.returncode == 130
    assert "the server goes on downloading" in text
    assert "cancelled" in done(there.millm("pull", GEMMA, "--cancel")).err
    assert_refused(there.millm("pull", GEMMA, "--cancel"), "not being downloaded")
    there.hub.forget()


def test_ctrl_c_gives_a_load_up(there: Shelf) -> None:
    done(there.millm("pull", LLAMA))
    status, text = next(ended for ended in (interrupted_load(there) for _ in range(60)) if ended[0] != 0)
    assert status == 130, text
    assert "`millm ps` shows what is loaded" in text
    is_loaded = json.loads(done(there.millm("ps", "--json")).out)["model"] is not None
    assert is_loaded != ("is given up" in text), text


def interrupted_load(there: Shelf) -> tuple[int, str]:
    """→ its status and what it said. So small a model may be there before the key arrives: then it is 0."""
    with there.on_screen("load", LLAMA) as terminal:
        while terminal.process.poll() is None and not is_changing(there):
            pass  # the screen would tell too late
        terminal.type(CTRL_C)
        text = terminal.to_the_end().replace("\n", "")  # which the terminal has put in
    return terminal.process.returncode, text


def is_changing(there: Shelf) -> bool:
    return httpx.get(f"http://127.0.0.1:{there.port}/api/status").json()["changing"] is not None


def test_a_load_that_cannot_be_is_refused_and_changes_nothing(there: Shelf) -> None:
    before = json.loads(done(there.millm("ps", "--json")).out)
    assert_refused(there.millm("load", "nobody/nothing"), "nobody/nothing")
    assert_refused(there.millm("attach", "nobody/nothing/x"))
    assert_refused(there.millm("detach", "nobody/nothing/x"))
    after = json.loads(done(there.millm("ps", "--json")).out)
    assert (after["status"], after["model"], after["saes"]) == (before["status"], before["model"], before["saes"])


def test_searching_over_the_server_is_searching_here(there: Shelf) -> None:
    asked = ("saes", "--model", "google/gemma-2-2b", "--layer", "20", "--width", "16k", "--json")
    here = done(there.millm(*asked)).out
    assert json.loads(here)["total"] == 16
    assert done(there.millm(*asked, "--url", f"http://127.0.0.1:{there.port}")).out == here
